"""Figures of runs: accuracy along a curve, and over the epochs of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltrobust_bench.evaluation.curves import Curve
from ltrobust_bench.report.figures.style import (
    GROUP_COLOURS,
    MOST,
    STYLE,
    WIDTHS,
    Column,
    add_legend,
    cut,
    legend_columns,
    look,
    new_figure,
    wrapped,
)
from ltrobust_bench.report.series import Series, SeriesGroup

ABSCISSA = {"eps": "{} radius of PGD-20 (pixel scale 0 to 1)", "steps": "steps of PGD"}
Looks = Mapping[str, tuple[str, str]]
"""Colour and mark by label."""
LETTERS = 28
"""Letters of a label in the legend."""


@matplotlib.rc_context(STYLE)
def curve_figure(curve: Curve, column: Column = "single") -> Figure:
    """Accuracy along a curve: over all classes, and of the head, medium and tail third."""
    figure = new_figure(column, WIDTHS[column] * (0.75 if column == "single" else 0.45))
    axes = figure.subplots()
    for (group, colour), marker in zip({"balanced": "#000000", **GROUP_COLOURS}.items(), "os^D", strict=True):
        values = [100 * float(getattr(point, group)) for point in curve.points]
        label = "all classes" if group == "balanced" else group
        if not np.isnan(values).any():
            axes.plot(curve.x, values, color=colour, marker=marker, markersize=3, linewidth=1.0, label=label)
    _curve_axes(axes, curve.kind, np.asarray(curve.x), curve)
    axes.set_ylabel("accuracy (%)")
    axes.legend()
    return figure


@matplotlib.rc_context(STYLE)
def curves_figure(
    group: SeriesGroup,
    kind: Literal["eps", "steps"],
    column: Column = "double",
    looks: Looks | None = None,
    most: int | None = MOST,
) -> Figure:
    """Accuracy along the radius or the steps of PGD, method by method: over all classes, and over the tail.

    Args:
        looks: colour and mark of entries by label, as in the figures of their board.
        most: series shown, the first ones; None: all.
    """
    shown = group.series[:most]
    columns = {"balanced": "all classes", "tail": "tail third"}
    columns = {c: name for c, name in columns.items() if not all(np.isnan(s.values[c]).all() for s in shown)}
    images = sorted({int(n) for s in shown for n in np.unique(s.values["images"]) if n < group.test_images})
    notes = [f"on the first {' or '.join(map(str, images))} of {group.test_images} test images"] if images else []
    drawn = _looks(group, looks, most)
    figure, panels = _panels(group, drawn, len(columns), column, notes)
    for panel, (name, title) in zip(panels, columns.items(), strict=True):
        for series in shown:
            _line(panel, series, series.values[name], drawn[series.label], marked=True)
        _curve_axes(panel, kind, np.unique(np.concatenate([series.x for series in shown])), group)
        panel.set_title(title, loc="left")
    panels[0].set_ylabel("accuracy (%)")
    return figure


@matplotlib.rc_context(STYLE)
def training_figure(
    group: SeriesGroup, column: Column = "double", looks: Looks | None = None, most: int | None = MOST
) -> Figure:
    """Loss, and accuracy on the training batches (attacked: solid, clean: dashed), over the epochs.

    Args:
        looks, most: as in :func:`curves_figure`.
    """
    drawn = _looks(group, looks, most)
    figure, panels = _panels(group, drawn, 2, column)
    for i, series in enumerate(group.series[:most]):
        look = drawn[series.label]
        _line(panels[0], series, series.values["loss"], look, start=i)
        _line(panels[1], series, 100 * series.values["train_robust"], look, start=i)
        _line(panels[1], series, 100 * series.values["train_clean"], look, start=i, linestyle="--")
    for panel, title in zip(panels, ("loss", "training accuracy (%): attacked solid, clean dashed"), strict=True):
        panel.set_title(title, loc="left")
        panel.set_xlabel("epoch")
        panel.grid(linewidth=0.3, alpha=0.5)
    panels[1].set_ylim(-2, 104)
    return figure


def _looks(group: SeriesGroup, looks: Looks | None, most: int | None) -> Looks:
    """Colour and mark of the series shown; of one that has none on a board, a free one."""
    known = looks or {}
    return {s.label: known.get(s.label, look(len(known) + i)) for i, s in enumerate(group.series[:most])}


def _panels(
    group: SeriesGroup, looks: Looks, count: int, column: Column, more: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """Panels side by side, or below each other in a single column, and the legend of the series shown."""
    handles: list[Artist] = []
    for label, (colour, marker) in looks.items():
        style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.0}
        handles.append(Line2D([], [], label=cut(label, LETTERS), **style))  # type: ignore[arg-type]
    notes = [*group.warnings, *more]
    if any(len(next(iter(series.values.values()))) > 1 for series in group.series[: len(looks)]):
        notes.append("bands: range over seeds")
    if len(group.series) > len(looks):
        notes.append(f"first {len(looks)} of {len(group.series)} entries")
    columns = legend_columns(handles, column)
    lines = -(-len(handles) // columns) + len(wrapped(notes, column))
    down, across = (count, 1) if column == "single" else (1, count)
    figure = new_figure(column, (1.9 if column == "single" else 2.4) * down + 0.135 * lines + 0.2)
    panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel().tolist()
    add_legend(figure, handles, notes, "outside lower center", columns, column)
    return figure, panels


def _line(
    panel: Axes,
    series: Series,
    values: np.ndarray,
    look: tuple[str, str],
    linestyle: str = "-",
    marked: bool = False,
    start: int = 0,
) -> None:
    """Mean over seeds, and their range as a band; nothing where no seed has a number.

    Args:
        marked: every point, else some, the first of them at ``start``.
    """
    there = ~np.isnan(values).all(axis=0)
    if not there.any():
        return
    x, values = series.x[there], values[:, there]
    colour, marker = look
    panel.plot(
        x,
        np.nanmean(values, axis=0),
        color=colour,
        linestyle=linestyle,
        linewidth=1.0,
        marker=marker,
        markersize=3,
        markevery=1 if marked else (start, max(1, len(x) // 6)),
    )
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        panel.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _curve_axes(axes: Axes, kind: str, x: np.ndarray, of: Curve | SeriesGroup) -> None:
    if kind == "steps":
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
    else:
        axes.axvline(of.epsilon, color="0.5", linewidth=0.6, linestyle=":")
        axes.annotate("protocol", (of.epsilon, 100), color="0.4", fontsize=6, xytext=(2, 0), textcoords="offset points")
    axes.set_xlabel(ABSCISSA[kind].format(of.threat_model))
    axes.set_ylim(-2, 104)
    axes.grid(linewidth=0.3, alpha=0.5)
