"""Resolution floors, equivalence, other test priors, and one page across data sets: against analytic values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from record_factory import TRAIN_COUNTS, synthetic_record
from scipy import stats

from ltrobust_bench.errors import UsageError
from ltrobust_bench.report.across import across, as_csv, as_markdown, ranks_of
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.compare import compare, resolution_in_words, resolutions
from ltrobust_bench.report.paper import paper_table, render
from ltrobust_bench.report.tables import markdown
from ltrobust_bench.scores.intervals import effective_images, over_seeds, wilson
from ltrobust_bench.scores.metrics import metrics_from_classes
from ltrobust_bench.scores.paired import DISCORDANT, NORMAL, contrast, equivalence, mcnemar, paired, resolution, tost
from ltrobust_bench.scores.priors import prior_named, under, upside_down

GENERATOR = np.random.default_rng(0)
LABELS = np.repeat(np.arange(5), 40)


def drawn(methods, share=0.5):
    return GENERATOR.random((methods, len(LABELS))) < share


# Equivalence


def test_tost_is_scipys_two_one_sided_t_tests():
    values, margin = np.asarray([0.4, -0.2, 0.1, 0.3, -0.1]) / 100, 0.01
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert tost(values.mean(), error, margin, len(values) - 1) == pytest.approx(max(above, below), rel=1e-10)


def test_tost_by_hand():
    """Difference 0.1, error 0.5, margin 1: the upper bound is 1.8 errors away, the lower one 2.2."""
    assert tost(0.1, 0.5, 1.0) == pytest.approx(stats.norm.sf(1.8))
    assert tost(-0.1, 0.5, 1.0) == tost(0.1, 0.5, 1.0)
    assert tost(1.0, 0.5, 1.0) == 0.5 and tost(2.0, 0.5, 1.0) > 0.97
    assert tost(0.0, 0.0, 1.0) == 0 and tost(2.0, 0.0, 1.0) == 1


def test_tost_is_the_90_percent_interval_inside_the_margin():
    for difference, error in GENERATOR.uniform((-1, 0.1), (1, 1), (50, 2)):
        inside = abs(difference) + stats.norm.ppf(0.95) * error < 1
        assert (tost(difference, error, 1.0) < 0.05) == inside


def test_equivalence_takes_the_worse_of_images_and_seeds():
    bits = [drawn(2) for _ in range(3)]
    found = paired(bits, [[0, 1]] * 3, LABELS, [0], [1])
    images = tost(found.difference, found.image_error, 0.1)
    seeds = tost(found.difference, found.seed_error, 0.1, 2)
    assert equivalence(found, 0.1) == np.maximum(images, seeds)
    one = paired(bits[:1], [[0, 1]], LABELS, [0], [1])
    assert np.isnan(one.seed_error) and equivalence(one, 0.1) == tost(one.difference, one.image_error, 0.1)
    same = paired([np.stack([bits[0][0]] * 2)], [[0, 1]], LABELS, [0], [1])
    assert 0.4 < equivalence(same, 0.001) < 0.5 and equivalence(same, 0.1) < 1e-6
    apart = paired([bits[0][:1], bits[1][:1]], [[0], [1]], LABELS, [0], [1])
    assert equivalence(apart, 1.0) == 1  # no seed in common


def test_half_is_made_of_the_two_errors():
    found = paired([drawn(3) for _ in range(4)], [[0, 1, 2]] * 4, LABELS, [0, 1], [1, 2])
    t = stats.t.ppf(0.975, 3)
    assert found.half == pytest.approx(np.maximum(NORMAL * found.image_error, t * found.seed_error))


def table(both, first, second, neither):
    """Bits of two models on one class, from the table of pairs."""
    rows = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    return np.asarray(rows, dtype=bool).T, np.zeros(len(rows), dtype=int)


@pytest.mark.parametrize("cells", [(60, 0, 0, 40), (60, 1, 0, 39), (60, 2, 1, 37), (5, 5, 0, 0)])
def test_few_discordant_images_have_the_error_of_agresti_and_min(cells):
    """Their interval: half an image more in each cell, n' = n + 2, se^2 = (b' + c' - (b' - c')^2 / n') / n'^2."""
    bits, labels = table(*cells)
    found = paired([bits], [[0, 1]], labels, [0], [1])
    _, b, c, _ = (np.asarray(cells) + 0.5).tolist()
    n = sum(cells) + 2
    assert found.image_error == pytest.approx(np.sqrt(b + c - (b - c) ** 2 / n) / n)
    assert found.half == pytest.approx(NORMAL * found.image_error)


def test_the_adjusted_error_is_a_floor_and_two_images_in_all():
    """With as many classes, too: those of K classes together get the two images, not two each."""
    for classes in (1, 5, 20):
        labels = np.repeat(np.arange(classes), 200 // classes)
        same = paired([np.ones((2, 200), dtype=bool)], [[0, 1]], labels, [0], [1])
        assert same.difference == 0 and same.image_error == pytest.approx(1 / 202)
    many = drawn(2)  # with half of all images answered differently the plain error is larger
    found = paired([many], [[0, 1]], LABELS, [0], [1])
    plain = np.sqrt(
        np.mean([np.var(many[0, i].astype(int) - many[1, i]) / 40 for i in np.arange(5)[:, None] == LABELS]) / 5
    )
    assert found.image_error == pytest.approx(plain)


def test_so_many_images_cannot_tell_a_smaller_difference_from_none():
    """Two models that answer 200 images alike: if one won 1 % of all, 200 would show it with 1 - 0.99^200 only."""
    for images, says in ((100, False), (200, False), (500, True)):
        bits, labels = table(images - images // 4, 0, 0, images // 4)
        found = paired([bits], [[0, 1]], labels, [0], [1])
        p_value = equivalence(found, 0.01, images)
        assert (
            p_value == pytest.approx(max(0.99**images, stats.norm.sf(0.01 * (images + 2)))) and (p_value < 0.05) == says
        )
    assert equivalence(found, 1.0, 500) < 1e-9


def test_a_weighted_sum_has_the_same_floor():
    bits, labels = table(60, 1, 0, 39)
    pair = paired([bits], [[0, 1]], labels, [0], [1])
    as_sum = contrast([bits[0].astype(float) - bits[1]], labels)
    assert as_sum.half == pytest.approx(pair.half) and as_sum.p_value == pair.p_value
    assert contrast([np.full(4, 0.5)], np.asarray([0, 0, 1, 1])).p_value > 0.005  # four images


# Resolution


@pytest.mark.parametrize("times", [4, 9])
def test_the_floor_falls_as_one_over_the_root_of_the_images(times):
    bits = drawn(6)  # half of all images are answered differently: the plain error
    few = resolution([bits], [list(range(6))], LABELS, 6)
    many = resolution([np.tile(bits, times)], [list(range(6))], np.tile(LABELS, times), 6)
    assert few > 0 and many == pytest.approx(few / np.sqrt(times), rel=1e-12)


def test_the_floor_by_hand():
    """One class of n images, q of them answered differently, evenly: variance q / n of each, q / n^2 of the mean; with
    an image more, (q + 1) / (n + 2)^2, where that is larger."""
    first, second = np.ones((2, 100), dtype=bool)
    first[:10], second[10:20] = False, False
    floor = resolution([np.stack([first, second])], [[0, 1]], np.zeros(100, dtype=int), 2)
    assert floor == pytest.approx(NORMAL * np.sqrt(21) / 102)
    for images in (100, 1000):  # alike: six images are the fewest that McNemar's test tells from none
        same = np.ones((2, images), dtype=bool)
        assert resolution([same], [[0, 1]], np.zeros(images, dtype=int), 2) == DISCORDANT / images
    assert mcnemar(DISCORDANT, 0) < 0.05 < mcnemar(DISCORDANT - 1, 0)
    assert np.isnan(resolution([first[None], second[None]], [[0], [1]], np.zeros(100, dtype=int), 2))


# Priors

COUNTS = [60, 25, 25, 10]
TESTS = [40, 30, 20, 10]


def test_priors_by_hand():
    assert prior_named("train", COUNTS) == pytest.approx(np.asarray(COUNTS) / 120)
    assert prior_named("uniform", COUNTS).tolist() == [0.25] * 4
    assert prior_named("reversed", COUNTS) == pytest.approx(np.asarray([10, 25, 25, 60]) / 120)


def test_reversed_twice_is_the_same():
    for _ in range(20):
        counts, tied = GENERATOR.permutation(12) + 1, GENERATOR.integers(1, 9, 12)
        assert np.array_equal(upside_down(upside_down(counts)), counts)
        assert np.array_equal(upside_down(counts), 13 - counts)
        assert sorted(upside_down(tied)) == sorted(tied)


def test_the_uniform_prior_gives_the_balanced_accuracy_and_its_interval():
    for seeds in (1, 3):
        per_class = GENERATOR.random((seeds, 2, 4))
        found = under(prior_named("uniform", COUNTS), per_class, TESTS)
        balanced = metrics_from_classes(per_class, TESTS, COUNTS).balanced
        expected = over_seeds(balanced, effective_images(TESTS))
        for name in ("mean", "low", "high"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name))


def test_the_prior_of_the_test_images_gives_the_plain_accuracy_and_wilsons_interval():
    """Weights as the images fall: sum w^2 / n = 1 / N."""
    per_class = np.asarray([[0.5, 0.2, 0.3, 0.9]])
    found = under(np.asarray(TESTS) / 100, per_class, TESTS)
    low, high = wilson(per_class[0] @ TESTS, 100)
    assert (found.mean, found.low, found.high) == pytest.approx((per_class[0] @ TESTS / 100, low, high))


def test_classes_without_test_images_are_left_out():
    found = under(np.asarray([0.5, 0.25, 0.25]), np.asarray([[np.nan, 0.2, 0.4]]), [0, 10, 10])
    assert found.mean == pytest.approx(0.3)


def test_a_prior_from_a_file(tmp_path):
    path = tmp_path / "mix.txt"
    path.write_text("1, 2\n3 4\n")
    assert prior_named(str(path), COUNTS).tolist() == [0.1, 0.2, 0.3, 0.4]
    for content, says in (
        ("1 2 3", "3 numbers for 4 classes"),
        ("1 2 3 x", "one number for each"),
        ("0 0 0 0", "zeros"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=says):
            prior_named(str(path), COUNTS)
    with pytest.raises(UsageError, match="none of train, uniform, reversed, and no readable file"):
        prior_named("absent", COUNTS)


# Across data sets


def records(board, robustness, **terms):
    """Three seeds of each method, with so much robustness, on a board of its own."""
    return [
        synthetic_record(method=method, seed=seed, robustness=share, train_index_sha256=board * 64, **terms)
        for method, share in robustness.items()
        for seed in range(3)
    ]


def test_boards_together():
    one = records("a", {"first": 0.95, "second": 0.4, "third": 0.2}, tests_per_class=100)
    two = records("d", {"first": 0.4, "second": 0.95, "alone": 0.2}, tests_per_class=100)
    even = [sum(TRAIN_COUNTS) // 10] * 10
    reference = records("a", {"at": 0.9}, profile="balanced", train_counts=even, imbalance_ratio=1.0)
    built = [b for b in boards(one + two + reference) if b.key.profile == "exp"]
    found = across(built)
    assert found.labels == ("first", "second") and found.seeds == (0, 1, 2)
    assert found.mean_rank.tolist() == [1.5, 1.5] and found.low.tolist() == found.high.tolist() == [1.5, 1.5]
    assert found.wins.tolist() == [[0, 1], [1, 0]]
    assert "2 entries that are ranked on all of 2 boards" in found.pool and "seeds 0, 1, 2" in found.pool
    text = as_markdown(found)
    assert found.pool in text and "| first | 1.50 | 1.50 | 1.50 | 1 | 1 | – |" in text
    assert as_csv(found).splitlines()[1] == "first,1.5,1.5,1.5,1,1,"
    with pytest.raises(UsageError, match="at least 2 are needed"):
        across(built[:1])


def test_a_board_with_few_entries_is_left_out_of_the_pool():
    shares = {"first": 0.9, "second": 0.6, "third": 0.3}
    built = boards(records("a", shares) + records("d", shares) + records("e", {"first": 0.5}))
    found = across(built)
    assert len(found.labels) == 3 and len(found.boards) == 2 and len(found.aside) == 1
    assert "Left out, for want of common entries" in found.pool


def test_the_share_of_the_reference():
    one = records("a", {"at": 0.5, "second": 0.6})
    board = boards(one)[0]
    twice = [replace(board, reference=board.entries[0]), replace(board, reference=board.entries[0])]
    found = across(twice)
    best = board.entries[0].label
    assert found.referenced == 2 and found.share[found.labels.index(best)] == 1.0
    assert found.mean_rank.min() == 1.0 and found.mean_rank.max() == 2.0


def test_a_table_under_a_prior():
    board = boards(records("a", {"first": 0.9, "second": 0.5}))[0]
    plain, uniform, train = (paper_table(board, prior=prior) for prior in (None, "uniform", "train"))
    assert uniform.means == pytest.approx(plain.means) and uniform.stds == pytest.approx(plain.stds)
    every = plain.groups.index("all")
    assert (train.means[:, :, every] > plain.means[:, :, every]).all()  # the head is easier
    others = [g for g in range(len(plain.groups)) if g != every]
    assert np.array_equal(train.means[:, :, others], plain.means[:, :, others])
    low, high = (100 * getattr(train.spreads[0, "union"], name) for name in ("low", "high"))
    assert f"({low:.1f}-{high:.1f})" in render(train, "markdown") and f"({low:.1f}-{high:.1f})" in render(
        train, "latex"
    )
    assert "clean_all_interval" in render(train, "csv") and '"prior"' in render(train, "json")
    assert "interval" not in render(plain, "csv") and "prior" not in render(plain, "json")
    assert "weighed by the prior 'train'" in render(train, "markdown")


def test_a_board_says_how_fine_it_is():
    board = boards(records("a", {"first": 0.9, "second": 0.5, "third": 0.4}))[0]
    found = resolutions(board)
    assert set(found) == {"all", "head", "medium", "tail"} and all(found["all"] < found[g] for g in ("head", "tail"))
    line = resolution_in_words(board)
    assert f"200 test images and 3 seeds resolve differences of about {100 * found['all']:.1f} points" in line
    assert line in markdown([board])
    assert resolutions(replace(board, entries=board.entries[:1])) == {}


def test_the_floor_of_a_long_board_is_of_entries_that_follow_one_another():
    """Not of some that are spread over it, which lie further apart."""
    shares = np.linspace(0.95, 0.05, 31)
    board = boards(records("a", {f"m{i:02d}": share for i, share in enumerate(shares)}))[0]
    entries = [(entry.label, entry.runs) for entry in board.entries]
    assert len(entries) == 31
    halves: dict[str, list[float]] = {}
    for pair in zip(entries, entries[1:], strict=False):
        for found in compare(pair):
            halves.setdefault(found.group, []).append((found.interval[1] - found.interval[0]) / 2)
    for group, value in resolutions(board).items():
        assert value == pytest.approx(np.median(halves[group]), rel=1e-12)


def test_compare_states_equivalence_with_its_margin():
    runs = {method: records("a", {method: share}) for method, share in {"first": 0.9, "twin": 0.9, "weak": 0.2}.items()}
    found = {(d.second, d.group): d for d in compare(list(runs.items()), margin=0.05)}
    twin, weak = found["twin", "all"], found["weak", "all"]
    assert twin.difference == 0 and twin.verdict == "equivalent within 5" and not twin.resolved
    assert weak.verdict == "better" and not weak.equivalent
    assert compare(list(runs.items()), margin=0.99)[4].verdict == "better, equivalent within 99"


def test_ranks_share_the_mean_of_equals():
    assert ranks_of(np.asarray([[3.0, 5.0, 3.0, 1.0]])).tolist() == [[2.5, 1.0, 2.5, 4.0]]
    values = GENERATOR.integers(0, 5, (6, 7)).astype(float)
    assert np.array_equal(ranks_of(values), stats.rankdata(-values, axis=-1))
