"""Boards, tables, figures and the command, on SYNTHETIC records."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from record_factory import synthetic_record

from ltrobust_bench.cli.report import command as report
from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import write_record
from ltrobust_bench.records.schema import Standing
from ltrobust_bench.report import leaderboard, tables
from ltrobust_bench.report.aggregate import NEEDS_SEEDS, boards, method_label
from ltrobust_bench.report.columns import LEADERBOARD
from ltrobust_bench.report.compare import resolved_pairs
from ltrobust_bench.report.figures import WIDTHS, per_class_figure, save, tradeoff_figure
from ltrobust_bench.report.site import chart, line, pairs
from ltrobust_bench.scores.intervals import t_interval, wilson

BITS = {
    "clean": [1, 1, 1, 1] * 2 + [1, 1, 0, 0],
    "pgd-20": [1, 1, 1, 0] + [1, 1, 0, 0] + [1, 0, 0, 0],
    "autoattack": [1, 1, 0, 1] + [1, 1, 0, 0] + [0, 1, 0, 0],
}
COUNTS = [40, 20, 10]


@pytest.fixture(scope="module")
def six():
    """Six synthetic entries, three seeds each."""
    names = ["at", "trades", "reat", "at-bsl", "robal", "taet"]
    return [
        synthetic_record(method=name, accuracy=0.65 + 0.03 * i, robustness=0.6 - 0.02 * i, seed=seed)
        for i, name in enumerate(names)
        for seed in range(3)
    ]


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_line_of_the_leaderboard_by_hand():
    (row,) = rows(tables.leaderboard_csv(boards([synthetic_record(BITS, train_counts=COUNTS)])))
    # Worst case: classes 2/4, 2/4, 0/4. AutoAttack: 3/4, 2/4, 1/4. Clean: 1, 1, 2/4.
    assert row["union_balanced"] == "33.33"
    assert (row["union_head"], row["union_medium"], row["union_tail"]) == ("50.00", "50.00", "0.00")
    assert row["union_worst_tenth"] == "0.00" and row["union_head_tail_gap"] == "50.00"
    assert (row["autoattack_kind"], row["autoattack_balanced"]) == ("autoattack", "50.00")
    assert (row["clean_balanced"], row["clean_tail"]) == ("83.33", "50.00")
    assert (row["rank"], row["seeds"], row["interval_kind"], row["flags"]) == (
        "1",
        "1",
        "wilson",
        "1 seed; needs 5 seeds",
    )
    low, high = wilson(4, 12)
    assert (row["interval_low"], row["interval_high"]) == (f"{100 * low:.2f}", f"{100 * high:.2f}")
    assert (row["protocol_status"], row["scope"]) == ("disposable", "full")


def test_groups_and_classes_by_hand():
    built = boards([synthetic_record(BITS, train_counts=COUNTS[::-1])])
    by_attack = {row["attack"]: row for row in rows(tables.groups_csv(built))}
    assert list(by_attack) == ["clean", "autoattack", "pgd-20", "union"]
    assert (by_attack["pgd-20"]["head"], by_attack["pgd-20"]["tail"]) == ("25.00", "75.00")
    classes = rows(tables.per_class_csv(built))
    assert [row["class"] for row in classes] == ["2", "1", "0"]
    first = classes[0]
    assert (first["rank"], first["group"], first["train_images"], first["test_images"]) == (
        "0",
        "head",
        "40",
        "4",
    )
    assert (first["clean"], first["autoattack"], first["union"]) == ("50.00", "25.00", "0.00")
    assert (first["natural_error"], first["boundary_error"]) == ("50.00", "50.00")


def test_spread_over_seeds_in_every_table(six):
    built = boards(six)
    reat = [record.metrics("union") for record in six[6:9]]
    row = next(r for r in rows(tables.leaderboard_csv(built)) if r["method"] == "reat")
    for column, name in (("union_balanced_std", "balanced"), ("union_tail_std", "tail")):
        assert row[column] == f"{100 * np.std([getattr(m, name) for m in reat], ddof=1):.2f}"
    row = next(r for r in rows(tables.groups_csv(built)) if (r["method"], r["attack"]) == ("reat", "union"))
    low, high = t_interval([m.tail for m in reat])
    assert (row["tail_low"], row["tail_high"]) == (f"{max(0, 100 * low):.2f}", f"{100 * high:.2f}")
    assert row["head_tail_gap_std"] == f"{100 * np.std([m.head_tail_gap for m in reat], ddof=1):.2f}"
    assert (row["seeds"], row["interval_kind"]) == ("3", "t over seeds")
    row = next(r for r in rows(tables.per_class_csv(built)) if (r["method"], r["class"]) == ("reat", "4"))
    errors = [r.metrics("clean").per_class[4] - m.per_class[4] for r, m in zip(six[6:9], reat, strict=True)]
    assert row["boundary_error_std"] == f"{100 * np.std(errors, ddof=1):.2f}"
    low, high = t_interval([m.per_class[4] for m in reat])
    assert (row["union_low"], row["union_high"]) == (f"{max(0, 100 * low):.2f}", f"{100 * high:.2f}")


def test_one_seed_has_no_standard_deviation_and_wilsons_interval():
    built = boards([synthetic_record(BITS, train_counts=COUNTS)])
    (row,) = (r for r in rows(tables.groups_csv(built)) if r["attack"] == "union")
    low, high = wilson(2, 4)
    assert (row["head_std"], row["head_low"], row["head_high"]) == ("", f"{100 * low:.2f}", f"{100 * high:.2f}")
    assert row["interval_kind"] == "wilson"
    assert row["worst_class_low"] == row["head_tail_gap_low"] == "", "neither is a proportion"
    first = rows(tables.per_class_csv(built))[0]
    assert (first["union_low"], first["union_std"]) == (f"{100 * low:.2f}", "")
    assert rows(tables.leaderboard_csv(built))[0]["union_balanced_std"] == ""


def test_the_tail_beside_the_balanced_reference():
    """The classes of the long-tailed board's tail, on both sides; a reference of other images or attacks is none."""
    equal = {"profile": "balanced", "train_index_sha256": "d" * 64}
    reference = synthetic_record(many(10), train_counts=[23, 23, 24], method="at", **equal)
    entry = synthetic_record(many(4), train_counts=COUNTS, method="reat")
    by_profile = {r["profile"]: r for r in rows(tables.leaderboard_csv(boards([entry, reference])))}
    assert by_profile["exp"]["union_tail_of_reference"] == "40.00"
    assert by_profile["balanced"]["union_tail_of_reference"] == ""
    other = synthetic_record(many(10), train_counts=[23, 23, 24], method="at", **equal, test_index_sha256="e" * 64)
    trades = synthetic_record(many(10), train_counts=[23, 23, 24], method="trades", **equal)
    unverified = reference.judged(Standing(level="claimed"))  # whoever adds one changes no number of another entry
    for no_reference in (other, trades, unverified):
        (row,) = (r for r in rows(tables.leaderboard_csv(boards([entry, no_reference]))) if r["method"] == "reat")
        assert row["union_tail_of_reference"] == ""


def test_hours_of_training_by_device():
    def on(device, threads, seed):
        record = synthetic_record(seconds=3600.0, seed=seed)
        where = record.environment.model_copy(update={"device": device, "threads": threads})
        return record.model_copy(update={"environment": where})

    (row,) = rows(tables.leaderboard_csv(boards([on("NVIDIA H100", 8, 0), on("AMD EPYC (CPU)", 2, 1)])))
    assert (row["gpu_hours"], row["cpu_hours"]) == ("1", "2")
    assert row["device"] == "AMD EPYC (CPU); NVIDIA H100"
    (row,) = rows(tables.leaderboard_csv(boards([on("AMD EPYC (CPU)", 1, 0)])))
    assert (row["gpu_hours"], row["cpu_hours"]) == ("", "1")


def test_seeds_are_averaged_and_the_interval_is_over_them(six):
    (board,) = boards(six)
    entry = next(e for e in board.entries if e.label == "reat")
    means = [100 * record.metrics("union").balanced for record in six[6:9]]
    assert entry.percent("union", "balanced") == pytest.approx(np.mean(means))
    assert [100 * bound for bound in entry.interval] == pytest.approx(list(t_interval(means)))
    assert entry.interval_kind == "t over seeds" and entry.flags == [NEEDS_SEEDS]
    assert [record.run.seed for record in entry.runs] == [0, 1, 2]


def many(robust, of=20):
    """Bits of 3 classes of ``of`` images: the first ``robust`` of each withstand every attack."""
    kept = ([1] * robust + [0] * (of - robust)) * 3
    return {name: [1] * 3 * of if name == "clean" else kept for name in BITS}


def test_best_first_and_what_is_not_resolved_shares_a_rank():
    robust = {"b": 18, "a": 18, "c": 17, "d": 12, "e": 11}
    made = [synthetic_record(many(n), train_counts=COUNTS, method=name) for name, n in robust.items()]
    (board,) = boards(made)
    ranks = [(entry.rank, entry.label) for entry in board.entries]
    assert ranks == [(1, "a"), (1, "b"), (1, "c"), (4, "d"), (4, "e")]
    assert [NEEDS_SEEDS in entry.flags for entry in board.entries] == [True, True, True, False, False]


def test_the_data_do_not_tell_entries_of_one_rank_apart_though_some_have_fewer_seeds():
    """Worst has three seeds, of which one is as good as the best's: no test tells these two apart. The one run of the
    middle one is worse than the best's and better than the worst's."""
    robust = {"best": (50, 31, 31), "middle": (35,), "worst": (20, 32, 32)}
    made = [
        synthetic_record(many(n, of=100), train_counts=COUNTS, method=method, seed=seed)
        for method, own in robust.items()
        for seed, n in enumerate(own)
    ]
    (board,) = boards(made)
    assert [(entry.label, entry.rank) for entry in board.entries] == [("best", 1), ("middle", 2), ("worst", 3)]
    better = resolved_pairs([entry.runs for entry in board.entries])
    assert better.tolist() == [[False, True, False], [False, False, True], [False, False, False]]


def test_five_seeds_make_a_claim_to_the_top():
    made = [synthetic_record(seed=s, method=m) for s in range(5) for m in "ab"]
    (board,) = boards([*made, synthetic_record(seed=0, method="c")])
    assert {e.label: NEEDS_SEEDS in e.flags for e in board.entries} == {"a": False, "b": False, "c": True}


def test_who_takes_other_seeds_than_all_others_is_flagged():
    """No test compares it with anybody, so a bad entry shares a rank with the one above it."""
    made = [synthetic_record(many(18), train_counts=COUNTS, method="good", seed=s) for s in range(3)]
    made += [synthetic_record(many(3), train_counts=COUNTS, method="bad", seed=s) for s in range(7, 10)]
    made += [synthetic_record(many(1), train_counts=COUNTS, method="worst", seed=s) for s in range(2, 8)]
    flagged = {e.label: "other seeds" in e.flags for e in boards(made)[0].entries}
    assert flagged == {"good": False, "bad": True, "worst": False}
    assert boards(made)[0].entries[1].rank == 1


def test_runs_that_build_on_their_own_seeds_run_are_one_entry():
    made = [synthetic_record(seed=s, method="crt", base_key=f"{s}" * 64) for s in range(3)]
    (board,) = boards(made)
    assert [(e.label, len(e.runs)) for e in board.entries] == [("crt", 3)]


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "cifar10-lt"},
        {"imbalance_ratio": 50.0, "train_index_sha256": "e" * 64},
        {"profile": "step"},
        {"model": "resnet18"},
        {"track": "paper"},
        {"protocol_digest": "f" * 64},
        {"protocol": "smoke", "protocol_digest": load_protocol("smoke").digest("digits-lt")},
        {"epsilon": 0.1},
        {"limit_test": 200},
        {"limit_train": 100},
        {"epochs": 3},
        {"holdout": "val"},
        {"train_index_sha256": "d" * 64},
        {"test_index_sha256": "d" * 64},
    ],
)
def test_boards_never_mix(other):
    built = boards([synthetic_record(), synthetic_record(method="b", **other)])
    assert [len(board.entries) for board in built] == [1, 1]
    assert len({board.slug for board in built}) == 2


def test_titles_say_what_was_cut_and_which_imbalance_is_left():
    cut = {"limit_train": 450, "train_counts": [200, 143, 103, 74, 53, 38, 27, 19, 14, 8]}
    (whole,), (board,) = boards([synthetic_record()]), boards([synthetic_record(**cut, holdout="val")])
    assert whole.title.startswith("digits-lt, imbalance ratio 20, small")
    assert board.title.startswith("digits-lt, imbalance ratio 20 asked, 25 left, small") and board.key.reduced
    assert "reduced runs: 450 training images, tested on held-out training images" in board.title


def test_runs_without_an_attack_have_a_board_of_their_own():
    short = {name: bits for name, bits in BITS.items() if name != "autoattack"}
    built = boards([synthetic_record(b, train_counts=COUNTS) for b in (BITS, short)])
    assert [len(board.entries) for board in built] == [1, 1]
    without = next(board for board in built if board.autoattack is None)
    assert "incomplete suite" in without.title and "aa-small-c" in without.title  # three classes
    assert rows(tables.leaderboard_csv([without]))[0]["autoattack_balanced"] == ""


def test_what_makes_an_entry():
    variants = [{}, {"options": {"tau": 2.0}}, {"plugins": ["awp"]}, {"overrides": {"lr": 0.05}}]
    (board,) = boards([synthetic_record(**variant) for variant in variants])
    assert {entry.label for entry in board.entries} == {
        "synthetic",
        "synthetic (tau=2.0)",
        "synthetic+awp",
        "synthetic (lr=0.05)",
    }
    off = next(e for e in board.entries if "lr" in e.label)
    assert off.flags == ["off-recipe", "1 seed"] and off.rank is None
    assert {e.rank for e in board.entries if e is not off} == {1}


def test_a_recipe_given_by_hand_takes_no_rank_from_any_entry():
    seeds, by_hand = range(3), {"activation": "silu"}
    better = [synthetic_record(robustness=0.9, overrides=by_hand, seed=seed) for seed in seeds]
    (board,) = boards([*better, *(synthetic_record(robustness=0.3, seed=seed) for seed in seeds)])
    assert [(e.label, e.rank) for e in board.entries] == [("synthetic (activation=silu)", None), ("synthetic", 1)]


@pytest.mark.parametrize(
    ("run", "flagged"),
    [
        ({"method": "frl"}, True),
        ({"method": "cfa"}, True),
        ({"method": "at", "plugins": ["robustlt"]}, True),
        ({"method": "at"}, False),
    ],
    ids=str,
)
def test_a_card_that_says_so_flags_radii_above_the_evaluations(run, flagged):
    ((entry,),) = (board.entries for board in boards([synthetic_record(**run)]))
    assert ("train-eps>eval-eps" in entry.flags) == flagged


def test_an_entry_one_of_whose_trainings_exploded_is_flagged():
    astray = synthetic_record(seed=1)
    astray = astray.model_copy(update={"status": astray.status.model_copy(update={"exploded": True})})
    for records, flagged in (([synthetic_record()], False), ([synthetic_record(), astray], True)):
        ((entry,),) = (board.entries for board in boards(records))
        assert ("loss exploded" in entry.flags) == flagged


def test_versions_of_a_card_are_different_entries():
    (board,) = boards([synthetic_record(card_version=v) for v in (1, 2)])
    assert sorted(entry.label.split(",")[0] for entry in board.entries) == [
        "synthetic (card v1",
        "synthetic (card v2",
    ]


def test_options_at_their_defaults_are_not_named(monkeypatch):
    class Known(dict):
        pass

    class Option:
        fixed, paper = 1.0, 3.0

    class Found:
        class card:  # noqa: N801
            options = {"tau": Option}

    monkeypatch.setattr("ltrobust_bench.report.aggregate.methods", Known(synthetic=Found))
    labels = [
        method_label(synthetic_record(track=track, options={"tau": tau}).run)
        for track in ("fixed", "paper")
        for tau in (1.0, 3.0)
    ]
    assert labels == ["synthetic", "synthetic (tau=3.0)", "synthetic (tau=1.0)", "synthetic"]


def test_the_same_seed_twice_keeps_the_earlier_run():
    early = synthetic_record(accuracy=0.5, created="2026-01-01T00:00:00Z")
    late = synthetic_record(accuracy=0.9, created="2026-02-01T00:00:00Z")
    for order in ([early, late], [late, early]):
        (board,) = boards(order)
        assert [record.id for record in board.entries[0].runs] == [early.id]
        (message,) = board.messages
        assert early.id in message and late.id in message and "seed 0" in message
    assert boards([early, early])[0].messages == []


def test_flags():
    recipe = synthetic_record().run.recipe.model_dump()
    recipe["attack"]["epsilon"] = 0.2
    (board,) = boards([synthetic_record(recipe=recipe, epochs=2, protocol="gone")])
    flags = ["reduced", "1 seed", "train-eps>eval-eps", "unknown protocol", NEEDS_SEEDS]
    assert board.entries[0].flags == flags
    assert board.status == "unknown" and "unknown protocol" in board.title and "2 epochs" in board.title
    assert "'gone'" in board.messages[0]


def test_a_plugin_that_raises_the_training_radius_is_flagged():
    options = {"robustlt.alpha": 0.3, "robustlt.beta": 0.8, "robustlt.start": "base"}
    (board,) = boards([synthetic_record(method="at", plugins=["robustlt"], options=options)])
    assert board.entries[0].label == "at+robustlt" and "train-eps>eval-eps" in board.entries[0].flags


def test_another_protocol_of_a_known_name():
    (board,) = boards([synthetic_record(protocol_digest="f" * 64)])
    assert board.status == "unknown" and "another protocol of the same name" in board.messages[0]


def test_disposable_protocols_are_called_so():
    (board,) = boards([synthetic_record()])
    assert "disposable protocol, not for papers" in board.title
    assert "disposable protocol, not for papers" in tables.markdown([board])


def test_a_smoke_test_is_not_ranked():
    smoke = {"protocol": "smoke", "protocol_digest": load_protocol("smoke").digest("digits-lt")}
    (board,) = boards([synthetic_record(method=name, accuracy=a, **smoke) for name, a in (("b", 0.9), ("a", 0.2))])
    assert [(entry.rank, entry.label) for entry in board.entries] == [(None, "a"), (None, "b")]
    assert "the numbers mean nothing" in tables.markdown([board])


def test_an_unranked_method_stands_in_its_place_and_takes_no_rank():
    made = [synthetic_record(many(18), train_counts=COUNTS, method=name) for name in ("at", "selfdistill")]
    made.append(synthetic_record(many(5), train_counts=COUNTS, method="trades"))
    (board,) = boards(made)
    assert [(e.rank, e.label.split(" ")[0]) for e in board.entries] == [(1, "at"), (None, "selfdistill"), (2, "trades")]
    assert ["unranked" in entry.flags for entry in board.entries] == [False, True, False]


def test_the_order_of_records_does_not_matter(six):
    made = [*six, synthetic_record(epochs=2), synthetic_record(model="resnet18", accuracy=0.9)]
    makers = (tables.leaderboard_csv, tables.groups_csv, tables.per_class_csv, tables.markdown)
    texts = [maker(boards(made)) for maker in makers]
    shuffled = list(made)
    random.Random(0).shuffle(shuffled)
    assert [maker(boards(shuffled)) for maker in makers] == texts
    assert not any("\r" in text for text in texts)


def test_markdown_and_csv_survive_odd_names():
    (board,) = boards([synthetic_record(options={"name": 'a|b,"c"'})])
    assert "a\\|b" in tables.markdown([board])
    assert rows(tables.leaderboard_csv([board]))[0]["method"] == 'synthetic (name=a|b,"c")'


def test_no_cell_is_a_formula():
    record = synthetic_record()
    hostile = record.model_copy(
        update={"environment": record.environment.model_copy(update={"device": "=HYPERLINK(1)"})}
    )
    (row,) = rows(tables.leaderboard_csv(boards([hostile])))
    assert row["device"] == "'=HYPERLINK(1)"
    made = [synthetic_record(bits, train_counts=[9, 6, 3]) for bits in [falling_backwards()]]
    assert float(rows(tables.leaderboard_csv(boards(made)))[0]["union_head_tail_gap"]) == -100


def falling_backwards():
    """The smallest of 3 classes is right, the others are wrong."""
    return dict.fromkeys(("clean", "autoattack"), [0] * 20 + [1] * 10)


def test_numbers_for_people_are_rounded_once():
    """59.346 is 59.3; by way of 59.35 it would be 59.4."""
    bits = dict.fromkeys(("clean", "autoattack"), ([1] * 29_673 + [0] * 20_327))
    (board,) = boards([synthetic_record(bits, train_counts=[2, 1])])
    spread = board.entries[0].percent("clean", "overall")
    assert f"{spread:.3f}" == "59.346"
    assert "| 59.3 |" in tables.markdown([board]) and "59.4" not in tables.markdown([board]).split("Percentages")[0]
    (row,) = rows(tables.leaderboard_csv([board]))
    assert row["clean_balanced"] == f"{float(board.entries[0].percent('clean', 'balanced')):.2f}"


def test_what_scripts_and_charts_round_was_not_rounded_before():
    """Of 3 times 10,000 images 17,804 are 59.347 %, and of 3 times 70 images 19 are 9.048 %."""
    place = np.tile(np.arange(1000), 10)
    made = []
    for seed, more in enumerate((4, 5, 5)):
        kept = place < np.repeat([593 + more, *[593] * 9], 1000)
        made.append(synthetic_record({"clean": kept, "autoattack": kept}, method="at", seed=seed))
        made.append(synthetic_record({"clean": place < 0, "autoattack": place < 0}, method="reat", seed=seed))
    (board,) = boards(made)
    (data,) = re.findall(r"ltbenchBoard\((.*)\);\n$", pairs.script(board, line.lines(board)), re.S)
    found = json.loads(data)
    numbers = (found["entries"][0]["robust"]["balanced"], found["pairs"]["all"]["difference"][0])
    assert [f"{number:.1f}" for number in numbers] == ["59.3", "59.3"]
    assert "| 59.3 |" in tables.markdown([board])
    seeds = 100 * np.array([[7.0] * 3, [6.0] * 3, [6.0] * 3]) / 70
    (*_, bar) = chart.per_class([3, 2, 1], seeds[0], seeds).bars
    assert (f"{bar.robust:.1f}", f"{bar.clean:.1f}") == ("9.0", "10.0")


def test_names_of_any_length_make_folders(tmp_path):
    long = {"protocol": "p" * 100, "dataset": "d" * 100, "model": "m" * 100}
    records = [synthetic_record(**long), synthetic_record(**long, imbalance_ratio=30.0, train_index_sha256="e" * 64)]
    slugs = [board.slug for board in boards(records)]
    assert len(set(slugs)) == 2 and all(len(slug) < 200 for slug in slugs)


def test_two_classes_have_no_groups(tmp_path):
    bits = {"clean": [1, 1, 1, 0], "aa-small-c": [1, 0, 0, 0]}
    record = synthetic_record({**bits, "pgd-20": bits["aa-small-c"]}, train_counts=[9, 3])
    built = boards([record])
    (row,) = rows(tables.leaderboard_csv(built))
    assert row["clean_head"] == row["union_head_tail_gap"] == "" and row["autoattack_kind"] == "aa-small-c"
    assert "aa-small-c" in tables.markdown(built)
    for figure in (per_class_figure(built[0]), tradeoff_figure(built[0])):
        assert all(path.stat().st_size > 3000 for path in save(figure, tmp_path / "figure"))


@pytest.mark.parametrize("column", ["single", "double"])
@pytest.mark.parametrize("make", [per_class_figure, tradeoff_figure])
def test_figures_fit_the_column_and_nothing_is_cut_off(six, make, column):
    long = [synthetic_record(method="x" * 30, overrides={"attack.steps": 7, "lr": 0.05}, seed=s) for s in (0, 1)]
    (board,) = boards([*six, *long])
    figure = make(board, column)
    figure.canvas.draw()
    assert figure.get_size_inches()[0] == WIDTHS[column]
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01 and box.y0 >= -0.01
    assert box.x1 <= figure.get_size_inches()[0] + 0.01 and box.y1 <= figure.get_size_inches()[1] + 0.01


def test_one_panel_per_entry_with_the_training_counts(six):
    (board,) = boards(six)
    panels = [axes for axes in per_class_figure(board).axes if axes.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == [entry.label for entry in board.entries]
    assert [tick.get_text() for tick in panels[-1].get_xticklabels()][:2] == ["0\n200", "1\n143"]
    heights = [bar.get_height() for bar in panels[0].patches]
    assert heights[:10] == pytest.approx(list(board.entries[0].percent("clean", "per_class")))
    assert heights[10:] == pytest.approx(list(board.entries[0].percent("union", "per_class")))


@pytest.fixture
def results(tmp_path, six):
    for record in six:
        write_record(record, tmp_path / "records" / record.run.record_path())
    return tmp_path


def test_leaderboard_writes_everything(results):
    built = leaderboard([results / "records"], results)
    slug = built.boards[0].slug
    wanted = {"leaderboard.csv", "groups.csv", "per_class.csv", "leaderboard.md"}
    wanted |= {f"figures/{slug}/{n}.{e}" for n in ("per_class", "tradeoff") for e in ("png", "svg", "pdf")}
    assert {str(path.relative_to(results)) for path in built.written} == wanted
    assert all(path.stat().st_size > 300 for path in built.written)
    assert built.markdown() == (results / "leaderboard.md").read_text()
    frame = built.to_frame()
    assert list(frame.columns) == list(LEADERBOARD) and len(frame) == 6
    assert frame["union_balanced"].is_monotonic_decreasing
    assert not built.messages and not built.damaged


def test_a_folder_that_is_not_there_is_a_problem(results):
    built = leaderboard([results / "records", results / "typo"], results, figures=False)
    assert built.messages == [f"there is no file or folder {results / 'typo'}"] and built.damaged == 1


def test_no_records_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match=r"no records in .*nowhere.*ltbench run --method reat --dataset digits-lt"):
        leaderboard([tmp_path / "nowhere"], tmp_path)


def test_the_command(results):
    found = CliRunner().invoke(report, ["leaderboard", "--no-figures"], env={"LTBENCH_RESULTS": str(results)})
    assert found.exit_code == 0, found.output
    assert "disposable protocol" in found.output and "at-bsl" in found.output
    assert f"wrote {results / 'leaderboard.csv'}" in found.output
    assert not (results / "figures").exists()


def test_the_command_with_a_damaged_record(results):
    (results / "records" / "broken.json").write_text("{")
    options = [
        "leaderboard",
        "--no-figures",
        "--results-dir",
        str(results / "out"),
        "--records",
        str(results),
    ]
    found = CliRunner().invoke(report, options)
    assert found.exit_code == 1 and "broken.json" in found.output
    assert len(rows((results / "out" / "leaderboard.csv").read_text())) == 6


@pytest.mark.parametrize(("width", "shown"), [(80, False), (140, True)])
def test_the_terminal_table_fits(six, width, shown):
    from rich.console import Console

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.terminal_table(boards(six)[0], width))
    text = console.export_text()
    assert ("Cost" in text) is shown and text.count("h/m/t") == 2 and "at-bsl" in text and "…" not in text


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_the_first_entries_of_a_long_board(six, width):
    from rich.console import Console

    board = boards(six)[0]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.terminal_table(board, width, 2))
    text = console.export_text()
    assert "... and 4 more" in text
    assert [entry.label in text.partition("...")[0] for entry in board.entries] == [True] * 2 + [False] * 4


def test_figures_are_laid_out_once_whatever_the_users_settings_say(six, tmp_path):
    import matplotlib

    places = []
    for automatic in (False, True):
        figure = tradeoff_figure(boards(six)[0])
        with matplotlib.rc_context({"figure.autolayout": automatic}):
            save(figure, tmp_path / "figure")
        places.append([panel.get_position().bounds for panel in figure.axes])
    assert places[0] == places[1]


def test_importing_the_report_is_light():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import ltrobust_bench.report, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
