"""The analyses of one network as tables and figures, double column, the largest training class first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ltrobust_bench.evaluation.analysis import UNION, Analysis, Classes, Confusion
from ltrobust_bench.files import write_text
from ltrobust_bench.report.aggregate import method_label
from ltrobust_bench.report.figures import CLEAN, FEW, GROUP_COLOURS, ROBUST, STYLE, cut, mark_thirds, new_figure, save

NATURAL, BOUNDARY, CORRECT = "#0072B2", "#E69F00", "0.85"
WIDE, HALF = 6.3, 2.8
"""Inches of a class axis over the whole figure, and over half of it."""
LETTERS, LETTER = 16, 0.06
"""Letters of a class name that are shown, and inches that each takes."""
NUMBERED = 12
"""Classes up to which a cell of a confusion matrix is wide enough for a number."""


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write each analysis as CSV and figure into a folder; the paths written."""
    figures = {
        "errors": errors_figure,
        "confusion": confusion_figure,
        "norms": norms_figure,
        "margins": margins_figure,
    }
    written = []
    for name, part in analysis.parts.items():
        write_text(folder / f"{name}.csv", part.csv())
        written += [folder / f"{name}.csv", *save(figures[name](analysis), folder / name)]
    return written


def attack_name(attack: str) -> str:
    """An attack as a caption says it."""
    return "worst case over the suite" if attack == UNION else attack.upper()


@matplotlib.rc_context(STYLE)
def errors_figure(analysis: Analysis) -> Figure:
    """Natural and boundary error of every class, one on the other: together the robust error."""
    errors = analysis.errors
    classes, order = errors.classes, errors.classes.order
    figure = new_figure("double", 2.3 + _room(classes, WIDE))
    panel = figure.subplots()
    width, hatch = (0.75, "/////") if len(order) <= FEW else (1.0, None)
    bottom = np.zeros(len(order))
    for label, share, colour, pattern in (
        ("natural error: wrong on the clean image", errors.natural, NATURAL, None),
        (f"boundary error: wrong only under attack ({attack_name(errors.attack)})", errors.boundary, BOUNDARY, hatch),
    ):
        style: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "hatch": pattern, "linewidth": 0}
        panel.bar(np.arange(len(order)), 100 * share[order], width, bottom=bottom, label=label, **style)
        bottom += 100 * share[order]
    panel.set_ylim(0, 100)
    panel.set_ylabel("share of the class (%)")
    means = [100 * classes.means(share)["all"] for share in (errors.natural, errors.boundary)]
    _title(panel, analysis, "mean over classes: natural {:.1f}, boundary {:.1f}".format(*means))
    _class_axis(panel, classes, WIDE)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def confusion_figure(analysis: Analysis) -> Figure:
    """What attacked images of each class are taken for, and in which third of the classes that lies."""
    confusion = analysis.confusion
    classes, attack = confusion.classes, attack_name(confusion.attack)
    figure = new_figure("double", 3.3 + _room(classes, HALF))
    matrix, fates = figure.subplots(1, 2, width_ratios=(1.2, 1), sharey=True)
    _cells(matrix, confusion)
    _fates(fates, confusion)
    for edge in np.cumsum([len(labels) for labels in classes.groups.values()])[:-1] - 0.5:
        for panel in (matrix, fates):
            panel.axhline(edge, color="0.4", linewidth=0.6, linestyle=":")
    matrix.set_xlabel(f"predicted class under {attack} (% of the true class)")
    fates.set_xlabel(f"where images end under {attack} (% of the true class)")
    note = ""
    if classes.groups:
        ends = {name: 100 * classes.means(share)["tail"] for name, share in confusion.ends.items()}
        note = "tail images end in: " + ", ".join(f"{share:.0f} % {name}" for name, share in ends.items())
    _title(matrix, analysis)
    fates.set_title(note, loc="right", pad=12, fontsize=6, color="0.3")
    figure.legend(loc="outside lower right", ncols=4)
    return figure


def _cells(panel: Axes, confusion: Confusion) -> None:
    """The confusion matrix."""
    classes, order = confusion.classes, confusion.classes.order
    shares = 100 * confusion.shares[order][:, order]
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest", aspect="auto")
    if len(order) <= NUMBERED:
        for i, j in zip(*np.nonzero(shares >= 0.5), strict=True):
            colour = "white" if shares[i, j] > 55 else "black"
            panel.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=6, color=colour)
    _class_axis(panel, classes, HALF, counts=len(order) > FEW)
    ticks, names, images = _ticks(classes)
    panel.set_yticks(ticks, [f"{n} ({i})" if n else i for n, i in zip(names, images, strict=True)], fontsize=6)
    panel.set_ylabel("true class (training images)")


def _fates(panel: Axes, confusion: Confusion) -> None:
    """For each class, one bar of what became of its images."""
    order = confusion.classes.order
    few, start = len(order) <= FEW, np.zeros(len(order))
    for name, share in confusion.fates.items():
        panel.barh(
            np.arange(len(order)),
            100 * share[order],
            0.75 if few else 1.0,
            left=start,
            facecolor=GROUP_COLOURS.get(name, CORRECT),
            edgecolor="white",
            hatch="/////" if few and name == "tail" else None,
            linewidth=0,
            label=f"wrong, in the {name}" if name in GROUP_COLOURS else name,
        )
        start += 100 * share[order]
    panel.set_xlim(0, 100)


@matplotlib.rc_context(STYLE)
def norms_figure(analysis: Analysis) -> Figure:
    """Mean and spread of every class's feature norm, and the norm of its class vector; hollow: as it is not in the
    logits."""
    norms = analysis.norms
    assert norms is not None
    classes, order, head = norms.classes, norms.classes.order, norms.head
    figure = new_figure("double", 2.4 + _room(classes, HALF))
    left, right = figure.subplots(1, 2)
    _points(left, norms.feature[order], head.kind != "cosine", norms.spread[order])
    left.set_ylabel("feature norm, mean and std")
    _class_axis(left, classes, HALF)
    _title(left, analysis)
    vectors = head.deployed if head.kind == "linear" else head.stored
    if vectors is None:
        right.text(0.5, 0.5, "the head has no class vectors", ha="center", transform=right.transAxes, color="0.4")
        right.set_axis_off()
    else:
        _points(right, vectors[order], head.kind == "linear")
        right.set_ylabel("norm of the class vector")
        _class_axis(right, classes, HALF)
    figure.legend(handles=[], title=head.note, title_fontsize=6, loc="outside lower center")
    return figure


def _points(panel: Axes, values: np.ndarray, acts: bool, spread: np.ndarray | None = None) -> None:
    """Norms by rank; filled where they act in the logits, and with their spread."""
    at = np.arange(len(values))
    few = len(values) <= FEW
    if spread is not None and few:
        panel.errorbar(at, values, spread, color=ROBUST, linewidth=0, elinewidth=0.8, capsize=2)
    elif spread is not None:
        panel.fill_between(at, values - spread, values + spread, color=CLEAN, alpha=0.5, linewidth=0)
    face = ROBUST if acts else "white"
    size = 3.5 if few else 1.5
    panel.plot(at, values, color=ROBUST, linewidth=0.6, marker="o", markersize=size, markerfacecolor=face)
    panel.set_ylim(0, 1.05 * panel.get_ylim()[1])


@matplotlib.rc_context(STYLE)
def margins_figure(analysis: Analysis) -> Figure:
    """Quantiles of every class's margins on clean and on attacked images: boxes, or bands of many classes."""
    margins = analysis.margins
    classes, order = margins.classes, margins.classes.order
    kinds = {
        "clean images": (margins.clean[order], CLEAN),
        f"under {attack_name(margins.attack)}": (margins.attacked[order], ROBUST),
    }
    few = len(order) <= FEW
    figure = new_figure("double", 2.6 + _room(classes, WIDE))
    panels = [figure.subplots()] if few else list(figure.subplots(1, 2, sharey=True))
    if few:
        _boxes(panels[0], kinds)
    else:
        for panel, (values, colour) in zip(panels, kinds.values(), strict=True):
            _bands(panel, values, colour)
    for panel in panels:
        panel.axhline(0, color="0.3", linewidth=0.6)
        _class_axis(panel, classes, WIDE / len(panels))
    panels[0].set_ylabel("margin (logits)")
    _title(panels[0], analysis)
    shown = "box 25 to 75 %, whiskers 5 to 95 %" if few else "dark band 25 to 75 %, pale band 5 to 95 %"
    figure.legend(
        handles=[Patch(facecolor=c, edgecolor="black", linewidth=0.5, label=k) for k, (_, c) in kinds.items()],
        title="logit of the true class minus the largest other one, in the network's own units; "
        f"line: median, {shown} of the class",
        title_fontsize=6,
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _boxes(panel: Axes, kinds: Mapping[str, tuple[np.ndarray, str]]) -> None:
    names = ("whislo", "q1", "med", "q3", "whishi")
    for shift, (values, colour) in zip((-0.2, 0.2), kinds.values(), strict=True):
        panel.bxp(
            [dict(zip(names, row, strict=True)) for row in values],
            positions=np.arange(len(values)) + shift,
            widths=0.34,
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "linewidth": 0.5},
            medianprops={"color": "black", "linewidth": 1.2},
            whiskerprops={"linewidth": 0.6},
            capprops={"linewidth": 0.6},
        )


def _bands(panel: Axes, values: np.ndarray, colour: str) -> None:
    at, (low, lower, median, upper, high) = np.arange(len(values)), values.T
    panel.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
    panel.fill_between(at, lower, upper, color=colour, alpha=0.6, linewidth=0)
    panel.plot(at, median, color="black", linewidth=0.8)


def _title(panel: Axes, analysis: Analysis, note: str = "") -> None:
    """Which network it is, and a note at the right end."""
    run = analysis.run
    panel.set_title(f"{cut(method_label(run))} on {run.dataset}, seed {run.seed}", loc="left", pad=12)
    panel.set_title(note, loc="right", pad=12, fontsize=6, color="0.3")


def _ticks(classes: Classes) -> tuple[np.ndarray, list[str], list[str]]:
    """Ranks, names and training images of all classes; of many classes every so many ranks, and no names."""
    order = classes.order
    few = len(order) <= FEW
    ticks = np.arange(len(order))[:: 1 if few else -(-len(order) // 10)]
    names = [cut(classes.names[order[i]], LETTERS) if few else "" for i in ticks]
    return ticks, names, [str(classes.train_counts[order[i]]) for i in ticks]


def _room(classes: Classes, inches: float) -> float:
    """Height that names need which are too long to stand side by side along so many inches."""
    ticks, names, _ = _ticks(classes)
    return 0.0 if max(map(len, names)) * LETTER <= inches / len(ticks) else 0.4


def _class_axis(panel: Axes, classes: Classes, inches: float, counts: bool = True) -> None:
    """The classes by rank along the lower axis, each with its training images; the thirds above."""
    ticks, names, images = _ticks(classes)
    if _room(classes, inches):
        labels = [f"{n} ({i})" if counts else n for n, i in zip(names, images, strict=True)]
        panel.set_xticks(ticks, labels, fontsize=6, rotation=40, ha="right", rotation_mode="anchor")
    else:
        labels = [f"{n}\n{i}".strip() if counts else n for n, i in zip(names, images, strict=True)]
        panel.set_xticks(ticks, labels, fontsize=6)
    panel.set_xlabel("class, with its training images" if any(names) else "training images of the class")
    panel.set_xlim(-0.6, len(classes.names) - 0.4)
    mark_thirds(panel, classes.train_counts, 1.01, transform=panel.get_xaxis_transform())
