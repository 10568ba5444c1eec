"""Figures, on SYNTHETIC records and files: what is drawn where, that it fits, and that it is the same again."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from record_factory import synthetic_record

from ltrobust_bench.cards import methods
from ltrobust_bench.cli import figures as verb
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.records.io import write_record
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.figures import (
    WIDTHS,
    curves_figure,
    groups_figure,
    head_tail_figure,
    heat_map_figure,
    per_class_figure,
    published_figure,
    ranks_figure,
    save,
    seeds_figure,
    tradeoff_figure,
    training_figure,
)
from ltrobust_bench.report.figures.kinds import BOARD_FIGURES, KINDS, draw_kinds
from ltrobust_bench.report.figures.scatter import pareto
from ltrobust_bench.report.figures.style import MOST, cast, cut, looks_of
from ltrobust_bench.report.published import PublishedNumber
from ltrobust_bench.report.series import read_series
from ltrobust_bench.scores.intervals import t_interval

OPTIONS = {slug: methods.get(slug).card.resolve_options("fixed", {}) for slug in methods.names()}


def entry(method, seeds=(0, 1, 2), **run):
    return [synthetic_record(method=method, options=OPTIONS[method], seed=s, **run) for s in seeds]


@pytest.fixture(scope="module")
def many():
    """A board of 16 ranked entries and one without a rank, some with long names; one is hardly robust."""
    made = [
        synthetic_record(method="at-bsl", options={"tau": 0.01 + i / 1000}, seed=seed, accuracy=0.6 + 0.02 * i)
        for i in range(15)
        for seed in (0, 1, 2)
    ]
    made += entry("erm", robustness=0.02) + entry("selfdistill", accuracy=0.95)
    return boards(made)[0]


@pytest.fixture(scope="module")
def few():
    return boards(entry("at", accuracy=0.6) + entry("reat", accuracy=0.9) + entry("trades", [0], accuracy=0.7))[0]


NUMBER = {
    "paper": "wu2021adversarial",
    "dataset": "cifar10-lt",
    "imbalance_ratio": 50.0,
    "model": "wrn-34-10",
    "method": "at",
    "name": "AT-FC",
    "metric": "clean",
    "value": Decimal("62.33"),
    "kind": "digitized",
    "where": "teaser",
    "source": "https://example.org",
}


def runs_in(folder, *names, seeds=(0, 1), curve=True):
    """Run folders with a training history and a curve, that of seed s shifted by s."""
    for name in names:
        for seed in seeds:
            place = folder / f"{name}-{seed}"
            place.mkdir(parents=True)
            (place / "plan.json").write_text(entry(name, [seed])[0].run.model_dump_json())
            rows = [f"{e},0.1,{2 / e + seed},{'' if e % 2 else 0.5},{'' if e % 2 else 0.25}" for e in (1, 2, 3, 4)]
            (place / "training.csv").write_text("\n".join(["epoch,lr,loss,train_clean,train_robust", *rows, ""]))
            points = [f"{x},{90 - 100 * x - seed},99,80,{50 - 100 * x},100" for x in (0.0, 0.15, 0.3)]
            if curve:
                text = "\n".join(["epsilon,balanced,head,medium,tail,images", *points, ""])
                (place / "curve-eps.csv").write_text(text)
    return folder


@pytest.fixture
def runs(tmp_path):
    return runs_in(tmp_path / "runs", "at", "reat")


def fits(figure, column):
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert width == WIDTHS[column]
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01, box


@pytest.mark.parametrize("column", ["single", "double"])
@pytest.mark.parametrize("kind", BOARD_FIGURES)
def test_figures_of_boards_fit_their_column(many, kind, column):
    fits(BOARD_FIGURES[kind](many, column), column)


@pytest.mark.parametrize("column", ["single", "double"])
def test_figures_of_runs_and_papers_fit_their_column(few, runs, column):
    ((group,), _), ((history,), _) = (read_series(kind, runs) for kind in ("eps", "training"))
    pairs = [(PublishedNumber(**NUMBER | {"metric": m}), 50.0) for m in ("clean", "aa", "balanced_pgd20")]
    fits(curves_figure(group, "eps", column), column)
    fits(training_figure(history, column), column)
    fits(published_figure(few, pairs, column), column)


@pytest.mark.parametrize(
    "make", [per_class_figure, groups_figure, tradeoff_figure, head_tail_figure, seeds_figure, ranks_figure]
)
def test_the_same_bytes_again(few, make, tmp_path):
    for first, second in zip(save(make(few), tmp_path / "a"), save(make(few), tmp_path / "b"), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.suffix


def test_pareto_front_by_hand():
    x, y = np.array([1.0, 2.0, 3.0, 3.0, 0.5, 2.0]), np.array([5.0, 4.0, 1.0, 1.0, 5.0, 3.0])
    assert pareto(x, y).tolist() == [0, 1, 2, 3], "equals beat neither of each other"
    assert pareto(np.array([1.0]), np.array([1.0])).tolist() == [0]


def test_nothing_on_the_front_is_beaten_and_all_else_is():
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 8, (2, 60)).astype(float)
    front = pareto(x, y)
    assert (np.diff(x[front]) >= 0).all()
    for i in range(60):
        beaten = any((x[j] >= x[i] and y[j] >= y[i]) and (x[j], y[j]) != (x[i], y[i]) for j in range(60))
        assert (i in front) != beaten


def dashed(axes):
    (line,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    return line.get_xdata(), line.get_ydata()


def test_the_drawn_front_encloses_every_ranked_entry(many):
    (axes,) = tradeoff_figure(many).axes
    x, y = dashed(axes)
    for e in many.entries:
        if e.rank is not None:
            clean, robust = (float(e.percent(attack, "balanced")) for attack in ("clean", "union"))
            assert any(clean <= a + 1e-9 and robust <= b + 1e-9 for a, b in zip(x, y, strict=True)), e.label
    assert x[0] == axes.get_xlim()[0] and y[-1] == axes.get_ylim()[0]


def title_of(figure):
    return figure.legends[0].get_title().get_text().replace("\n", " ")


def test_scatter_names_the_first_and_counts_what_it_leaves_out(many):
    figure = tradeoff_figure(many)
    assert f"best {MOST} of {len(many.entries)} entries named" in title_of(figure)
    assert "1 entries of less than half the best robustness" in title_of(figure)
    points = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert len(points) == len(many.entries) - 1
    looks = {(p.get_color(), p.get_marker()) for p in points if p.get_markersize() > 5}
    assert len(looks) == MOST, "no two named entries look alike"


def test_head_tail_points_are_the_entries(few):
    (axes,) = head_tail_figure(few).axes
    drawn = {(round(p.get_xdata()[0], 6), round(p.get_ydata()[0], 6)) for p in axes.lines}
    metric = [[round(float(e.percent("union", group)), 6) for group in ("head", "tail")] for e in few.entries]
    assert drawn == set(map(tuple, metric))


def test_bars_of_groups_are_the_means_and_their_spread(few):
    figure = groups_figure(few)
    for panel, attack in zip(figure.axes, ("clean", "union"), strict=True):
        heights = [bar.get_height() for bar in panel.patches]
        assert heights == pytest.approx(
            [float(e.percent(attack, group)) for group in ("head", "medium", "tail") for e in few.entries]
        )
        ranges = [c for c in panel.collections if isinstance(c, LineCollection)]
        lengths = [np.ptp(segment[:, 1]) for c in ranges for segment in c.get_segments()]
        bars = [sum(e.bars(attack, group)) for group in ("head", "medium", "tail") for e in few.entries]
        assert lengths == pytest.approx(bars) and min(lengths) > 0


def test_every_seed_and_the_interval_are_drawn(few):
    panel = seeds_figure(few).axes[1]
    row = next(i for i, e in enumerate(few.entries) if e.label == "reat")
    values = few.entries[row].per_seed("union", "tail")
    points = next(line for line in panel.lines if line.get_marker() == "o" and line.get_ydata()[0] == row)
    assert points.get_xdata() == pytest.approx(values)
    lines = [s for c in panel.collections for s in c.get_segments() if s[0, 1] == row]
    low, high = t_interval(values)
    assert lines[0][:, 0] == pytest.approx([max(low, 0), min(high, 100)])
    assert [tick.get_text() for tick in seeds_figure(few).axes[0].get_yticklabels()] == [e.label for e in few.entries]


def test_places_are_those_of_the_means(many):
    (axes,) = ranks_figure(many).axes
    ranked = [e for e in many.entries if e.rank is not None]
    assert len(axes.lines) == len(ranked) == len(many.entries) - 1
    for column, (attack, metric) in enumerate(
        [("clean", "balanced"), ("autoattack", "balanced"), ("autoattack", "tail")]
    ):
        means = [round(float(e.percent(attack, metric)), 6) for e in ranked]
        drawn = sorted(line.get_ydata()[column] for line in axes.lines)
        assert drawn == list(range(1, len(ranked) + 1))
        first = [t.get_text() for t in axes.texts if t.get_text().split()[0] == "1"]
        best = ranked[int(np.argmax(means))].label
        if column == 2:
            assert first[0].split("  ")[1][:8] == best[:8]


def test_all_that_are_chosen_are_drawn_on_more_pages_where_one_has_no_room(many, tmp_path):
    for record in (run for e in many.entries for run in e.runs):
        write_record(record, tmp_path / "records" / record.run.record_path())
    names = [e.label for e in many.entries][::-1]
    out = tmp_path / "out"
    drawn = draw_kinds(["per_class", "seeds"], tmp_path, tmp_path, names=names, output=out)
    assert drawn.written == [out / "per_class-1", out / "per_class-2", out / "seeds"]
    pages = [(out / f"per_class-{n}.svg").read_text() for n in (1, 2)]
    for i, name in enumerate(names):
        assert [f"<!-- {cut(name)} -->" in page for page in pages] == [i < MOST, i >= MOST], name
    assert "entries" not in "".join(re.findall("<!-- (.*) -->", pages[0])), "nothing is left out"


def test_an_entry_looks_the_same_in_all_figures_of_its_board(many):
    whole = looks_of(many)
    chosen = many.only(many.entries[3:17:2])
    assert looks_of(chosen) == looks_of(chosen.only(chosen.entries[:2])) == whole and len(set(whole.values())) == 17
    for board in (many, chosen):
        named = cast(board, MOST)
        drawn = {
            (round(p.get_xdata()[0], 6), round(p.get_ydata()[0], 6)): (p.get_color(), p.get_marker())
            for p in tradeoff_figure(board).axes[0].lines
            if p.get_markersize() > 5 and p.get_linestyle() == "None"
        }
        wanted = {
            tuple(round(float(e.percent(attack, "balanced")), 6) for attack in ("clean", "union")): whole[e.label]
            for e in named
        }
        assert drawn == wanted


def test_curves_take_the_looks_of_the_board(runs):
    (group,), _ = read_series("eps", runs)
    figure = curves_figure(group, "eps", looks={"reat": ("#123456", "h"), "trades": ("#000000", "o")})
    colours = {line.get_label(): line.get_color() for line in figure.legends[0].legend_handles}
    assert colours["reat"] == "#123456" and colours["at"] not in ("#123456", "#000000")


def test_what_every_paper_compares_with_is_always_named():
    made = [
        synthetic_record(method="at-bsl", options={"tau": 0.01 + i / 1000}, seed=seed, accuracy=0.9)
        for i in range(14)
        for seed in (0, 1, 2)
    ]
    board = boards(made + entry("at", accuracy=0.3) + entry("trades", accuracy=0.2))[0]
    shown = [e.label for e in cast(board, MOST)]
    assert len(shown) == MOST and shown[-2:] == ["at", "trades"]
    assert shown[:-2] == [e.label for e in board.entries[: MOST - 2]]
    assert f"best {MOST - 2} of 16 entries, and at and trades named" in title_of(tradeoff_figure(board))
    for most in range(2, 17):
        assert {"at", "trades"} <= {e.label for e in cast(board, most)} and len(cast(board, most)) == min(most, 16)


def test_the_heat_map_holds_the_accuracies_of_the_classes(few):
    axes, bar = heat_map_figure(few).axes
    (image,) = axes.get_images()
    values = np.stack([e.percent("union", "per_class")[few.classes] for e in few.entries])
    np.testing.assert_allclose(np.asarray(image.get_array()), values)
    assert image.get_clim() == (0, 100)
    assert [t.get_text() for t in axes.texts[: values.size]] == [f"{v:.0f}" for v in values.ravel()]
    assert bar.get_ylabel() == "worst-case accuracy (%)"


def test_deviations_over_seeds_are_drawn_at_the_points(few):
    (axes,) = tradeoff_figure(few).axes
    lengths = sorted(np.ptp(s, axis=0).max() for c in axes.collections for s in c.get_segments())
    assert lengths == pytest.approx(sorted(sum(e.bars(a, "balanced")) for e in few.entries for a in ("clean", "union")))
    (alone,) = (e for e in few.entries if len(e.runs) == 1)
    several = few.entries[0]
    assert several.bars("union", "tail") == (several.std("union", "tail"),) * 2
    low, high = (100 * end for end in alone.interval)
    mean = float(alone.percent("union", "balanced"))
    assert alone.bars("union", "balanced") == pytest.approx((mean - low, high - mean))
    said = "bars: ± standard deviation over seeds; of one seed: 95 % interval of the test images"
    assert said in title_of(tradeoff_figure(few)).replace("\n", " ")


def test_published_and_ours_stand_on_one_line(few):
    metrics = ["aa", "clean", "pgd20"]
    pairs = [(PublishedNumber(**NUMBER | {"metric": m}), 40.0 + i) for i, m in enumerate(metrics)]
    figure = published_figure(few, pairs)
    (axes,) = figure.axes
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert [label.split(":")[0] for label in labels] == ["clean", "pgd20", "aa"]
    assert "wrn-34-10" in labels[0], "another network than the board's is named"
    joined = [sorted(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert joined == [[41.0, 62.33], [42.0, 62.33], [40.0, 62.33]]
    assert "nothing here is ranked" in title_of(figure)


def test_seeds_of_runs_are_one_series(runs):
    (group,), problems = read_series("eps", runs)
    assert problems == [] and [s.label for s in group.series] == ["at", "reat"]
    series = group.series[0]
    assert series.x.tolist() == [0.0, 0.15, 0.3]
    assert series.values["balanced"].tolist() == [[90.0, 75.0, 60.0], [89.0, 74.0, 59.0]]
    assert group.slug == "digits-v0-digits-lt-ir20-small-fixed" and group.epsilon == 0.15
    figure = curves_figure(group, "eps")
    assert "on the first 100 of 200 test images" in title_of(figure) and "bands: range over seeds" in title_of(figure)
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([89.5, 74.5, 59.5])


def test_runs_under_another_version_of_the_card_are_no_seeds(runs):
    place = runs / "at-old"
    place.mkdir()
    run = entry("at", [0], card_version=7)[0].run
    (place / "plan.json").write_text(run.model_dump_json())
    (place / "curve-eps.csv").write_bytes((runs / "at-0" / "curve-eps.csv").read_bytes())
    (group,), problems = read_series("eps", runs)
    seeds = {series.label.partition(", ")[0]: len(series.values["tail"]) for series in group.series}
    assert problems == [] and seeds == {"at (card v1": 2, "at (card v7": 1, "reat": 2}


def test_training_histories_have_gaps(runs):
    (group,), problems = read_series("training", runs)
    assert problems == [] and np.isnan(group.series[0].values["train_robust"][0]).tolist() == [True, False] * 2
    loss, accuracy = training_figure(group).axes
    assert loss.lines[0].get_ydata() == pytest.approx([2.5, 1.5, 2 / 3 + 0.5, 1.0])
    assert accuracy.lines[0].get_xdata().tolist() == [2.0, 4.0]
    assert accuracy.lines[0].get_ydata() == pytest.approx([25, 25])


def test_other_terms_are_other_figures_and_can_be_chosen(runs):
    place = runs / "other"
    place.mkdir()
    run = entry("at", [0], imbalance_ratio=5.0)[0].run
    (place / "plan.json").write_text(run.model_dump_json())
    (place / "training.csv").write_text("epoch,lr,loss,train_clean,train_robust\n1,0.1,2,,\n")
    assert [g.slug.split("-")[4] for g in read_series("training", runs)[0]] == ["ir20", "ir5"]
    (group,), _ = read_series("training", runs, imbalance_ratio=5.0)
    assert [s.label for s in group.series] == ["at"] and len(group.series[0].x) == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("curve-eps.csv", "epsilon,balanced\n0,1\n", "no column 'tail'"),
        ("curve-eps.csv", "epsilon,balanced,tail,images\n0,x,1,100\n", "no table of numbers"),
        ("curve-eps.csv", "epsilon,balanced,tail,images\n0,1,1,100\n", "another epsilon or images"),
        ("curve-eps.csv", b"\xff\xfe", "no table of numbers"),
        ("plan.json", "{}", "no plan of a run"),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_drawn(runs, name, text, words):
    path = runs / "at-1" / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (group,), (problem,) = read_series("eps", runs)
    assert words in problem and str(path.parent) in problem
    assert [len(s.values["tail"]) for s in group.series] == [1, 2]


def test_a_folder_that_is_no_run_and_a_run_without_epochs_are_passed_over(runs):
    (runs / "notes").mkdir()
    (runs / "notes" / "training.csv").write_text("epoch,lr,loss,train_clean,train_robust\n1,0.1,2,,\n")
    (runs / "at-0" / "training.csv").write_text("epoch,lr,loss,train_clean,train_robust\n")
    (group,), problems = read_series("training", runs)
    assert problems == [] and [len(s.values["loss"]) for s in group.series] == [1, 2]


def test_what_cannot_be_drawn_is_left_out_with_the_reason(tmp_path):
    bits = {"clean": [1, 1, 1, 0], "pgd-20": [1, 0, 0, 0]}
    record = synthetic_record(bits, train_counts=[9, 3])
    write_record(record, tmp_path / "records" / record.run.record_path())
    drawn = draw_kinds([], tmp_path, tmp_path / "runs")
    possible = {"per_class", "heat_map", "tradeoff"}
    assert {path.name for path in drawn.written} == possible and set(drawn.left_out) == set(KINDS) - possible
    assert "thirds" in drawn.left_out["groups"] and "seed" in drawn.left_out["seeds"]
    assert "--curve eps" in drawn.left_out["eps"] and "published" in drawn.left_out["published"]
    with pytest.raises(UsageError, match="groups: fewer than 3 classes"):
        draw_kinds(["groups"], tmp_path, tmp_path / "runs")
    with pytest.raises(UnknownNameError, match="entry of this board"):
        draw_kinds(["per_class"], tmp_path, tmp_path, names=["reat"])


def test_runs_are_drawn_without_records(runs, tmp_path):
    drawn = draw_kinds([], tmp_path / "results", runs)
    assert sorted(path.name for path in drawn.written) == ["eps", "training"]
    assert all(path.parent.name == "digits-v0-digits-lt-ir20-small-fixed" for path in drawn.written)
    assert "no records" in drawn.left_out["per_class"]


def test_figures_of_different_terms_do_not_overwrite_one_another(runs, tmp_path):
    place = runs_in(tmp_path / "more", "at", seeds=[5])
    run = entry("at", [5], imbalance_ratio=5.0)[0].run
    (place / "at-5" / "plan.json").write_text(run.model_dump_json())
    (place / "at-5").rename(runs / "at-5")
    drawn = draw_kinds(["training"], tmp_path, runs, output=tmp_path / "out")
    assert len(drawn.written) == len(set(drawn.written)) == 2
    drawn = draw_kinds(["training"], tmp_path, runs, output=tmp_path / "out", names=["reat"])
    assert drawn.written == [tmp_path / "out" / "training"], "reat was run under one of them only"
    with pytest.raises(UsageError, match="no run of trades in"):
        draw_kinds(["training"], tmp_path, runs, output=tmp_path / "out", names=["trades"])


def test_the_command_knows_all_kinds():
    assert verb.KINDS == KINDS


def test_drawing_needs_no_torch():
    code = "import ltrobust_bench.report.figures.kinds, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "results" / "figures").rglob("*.png")), ids=str)
def test_committed_figures_come_in_every_format(path):
    assert path.with_suffix(".svg").exists() and path.with_suffix(".pdf").exists()


def test_figures_do_not_depend_on_the_readers_matplotlibrc(tmp_path):
    (board,) = boards(entry("at", seeds=(0, 1)) + entry("reat", seeds=(0, 1)))
    theirs = {"text.usetex": True, "axes.facecolor": "red", "font.size": 30, "savefig.bbox": "tight", "axes.grid": True}
    plain = save(tradeoff_figure(board), tmp_path / "plain")
    with matplotlib.rc_context(theirs):
        other = save(tradeoff_figure(board), tmp_path / "theirs")
    for one, two in zip(plain, other, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
