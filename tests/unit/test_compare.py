"""Paired comparison of methods: tests by hand, corrections, what is called resolved, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.errors import UsageError
from ltrobust_bench.report.compare import compare, resolved_pairs
from ltrobust_bench.scores.intervals import t_interval
from ltrobust_bench.scores.paired import better, holm, mcnemar, paired


@pytest.mark.parametrize(
    ("first_only", "second_only", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (8, 1, 2 * 10 / 512), (1, 0, 1.0)],
)
def test_mcnemar_by_hand(first_only, second_only, p):
    assert mcnemar(first_only, second_only) == pytest.approx(p)


def test_mcnemar_keeps_its_level():
    """Two equally good models are told apart at most as often as promised."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(2000):
        a, b = generator.random((2, 200)) < 0.4
        found += mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.05
    assert found / 2000 < 0.05


def test_mcnemar_of_many_pairs_is_the_binomial_test_of_each():
    from scipy.stats import binomtest

    first, second = np.divmod(np.arange(30 * 30).reshape(2, 450), 30)
    expected = [binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in zip(first.flat, second.flat, strict=True)]
    assert mcnemar(first, second) == pytest.approx(np.reshape(expected, first.shape), rel=1e-10)
    assert mcnemar(40, 3000) == pytest.approx(binomtest(40, 3040).pvalue, rel=1e-10, abs=0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5] and len(holm([])) == 0
    assert holm([[0.6, 0.7], [0.02, 0.01]]) == pytest.approx(np.asarray([[1.0, 1.0], [0.02, 0.02]]))


def test_holm_never_undercuts_and_keeps_the_order():
    p = np.random.default_rng(0).random(20).tolist()
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert [adjusted[i] for i in np.argsort(p)] == sorted(adjusted)


@pytest.mark.parametrize(("rho", "per_class"), [(0.0, 100), (0.7, 100), (0.7, 50)])
def test_paired_interval_covers(rho, per_class):
    """Coverage of the true class-balanced difference, with models that share part of their mistakes."""
    generator, classes, covered, rounds = np.random.default_rng(1), 5, 0, 1500
    labels = np.repeat(np.arange(classes), per_class)
    first, second = np.linspace(0.3, 0.7, classes), np.linspace(0.5, 0.4, classes)
    for _ in range(rounds):
        common, own = generator.random(len(labels)), generator.random((2, len(labels)))
        shared = generator.random((2, len(labels))) < rho
        a, b = (np.where(s, common, o) < p[labels] for s, o, p in zip(shared, own, (first, second), strict=True))
        found = paired([np.stack([a, b])], [[0, 1]], labels, [0], [1])
        covered += abs(found.difference[0] - (first - second).mean()) <= found.half[0]
    assert 0.93 <= covered / rounds <= 0.97


def test_interval_over_seeds_covers_where_pooling_images_does_not():
    """With 3 seeds that spread, t over seed means keeps its level; an interval of pooled images under-covers."""
    generator, t_covers, pooled_covers, rounds = np.random.default_rng(2), 0, 0, 2000
    for _ in range(rounds):
        means = np.clip(generator.normal(0.4, 0.02, 3), 0, 1)
        seen = generator.binomial(1000, means) / 1000
        low, high = t_interval(seen)
        t_covers += low <= 0.4 <= high
        half = 1.96 * np.sqrt(seen.mean() * (1 - seen.mean()) / 3000)
        pooled_covers += abs(seen.mean() - 0.4) <= half
    assert 0.93 <= t_covers / rounds <= 0.97
    assert pooled_covers / rounds < 0.85


COUNTS = [60, 30, 10]


def runs(name, accuracies):
    """One record per seed; images of a class are right up to a share, so that models nest."""
    made = []
    for seed, accuracy in enumerate(accuracies):
        bits = [int(i < accuracy * 40) for _ in COUNTS for i in range(40)]
        made.append(synthetic_record({"clean": [1] * 120, "pgd-20": bits}, train_counts=COUNTS, method=name, seed=seed))
    return name, made


def test_a_clear_difference_in_every_seed_is_resolved():
    found = compare([runs("at", [0.75, 0.8, 0.7]), runs("trades", [0.5, 0.5, 0.45])])
    assert [d.group for d in found] == ["all", "head", "medium", "tail"]
    everything = found[0]
    assert everything.difference == pytest.approx((0.25 + 0.3 + 0.25) / 3) and everything.seeds == (0, 1, 2)
    assert everything.resolved and everything.p_value == mcnemar(30, 0)


def test_one_seed_that_disagrees_leaves_it_unresolved():
    (everything, *_) = compare([runs("at", [0.75, 0.8, 0.4]), runs("trades", [0.5, 0.5, 0.6])])
    assert everything.p_value == 1.0 and not everything.resolved


def test_equal_methods_do_not_differ():
    (everything, *_) = compare([runs("at", [0.5, 0.6]), runs("trades", [0.5, 0.6])])
    assert everything.difference == 0 and everything.p_value == 1 and not everything.resolved


def test_the_correction_goes_over_the_methods():
    two = compare([runs("at", [0.7, 0.7]), runs("trades", [0.5, 0.5])])
    three = compare([runs("at", [0.7, 0.7]), runs("trades", [0.5, 0.5]), runs("mart", [0.6, 0.6])])
    assert two[0].p_holm == two[0].p_value and three[0].p_holm == pytest.approx(2 * three[0].p_value)
    assert [d.second for d in three] == ["trades"] * 4 + ["mart"] * 4


def test_only_common_seeds_are_paired():
    name, made = runs("trades", [0.5, 0.5, 0.5])
    (everything, *_) = compare([runs("at", [0.7]), (name, made)])
    assert everything.seeds == (0,) and everything.interval[0] < 0.2 < everything.interval[1]
    with pytest.raises(UsageError, match="no seed in common"):
        compare([runs("at", [0.7]), (name, made[1:])])
    with pytest.raises(UsageError, match="two methods"):
        compare([runs("at", [0.7])])


def test_classes_that_point_one_way_and_images_that_point_the_other_show_nothing():
    """Test sets need not be balanced: the difference weighs classes alike, McNemar's test images."""
    counts, made = [1000, 60, 60], []
    for name, right in (("at", (600, 10, 10)), ("trades", (500, 20, 20))):
        bits = [int(i < r) for n, r in zip(counts, right, strict=True) for i in range(n)]
        record = synthetic_record(
            {"clean": [1] * 1120, "pgd-20": bits}, train_counts=COUNTS, test_counts=counts, method=name, seed=0
        )
        made.append((name, [record]))
    overall = compare(made, "pgd-20")[0]
    assert overall.difference < 0 and overall.p_value == 1.0 and not overall.resolved


def test_equal_seeds_do_not_make_an_interval_of_no_width():
    low, high = compare([runs("at", [0.6, 0.6, 0.6]), runs("trades", [0.5, 0.5, 0.5])], "pgd-20")[0].interval
    assert low < 0.1 < high


def by_the_book(first, second, labels):
    """Difference, interval and p-value of two methods, from the bits of each seed pair, image by image."""
    from scipy.stats import binomtest

    differences, halves, p_values = [], [], []
    for a, b in zip(first, second, strict=True):
        changes = [[int(x) - int(y) for x, y, z in zip(a, b, labels, strict=True) if z == c] for c in set(labels)]
        differences.append(np.mean([np.mean(change) for change in changes]))
        plain = sum(np.var(change) / len(change) for change in changes)
        floor = sum(of_agresti_and_min(change, 0.5 / len(changes)) for change in changes)
        halves.append(1.959964 * np.sqrt(max(plain, floor)) / len(changes))
        only = sum(change.count(1) for change in changes), sum(change.count(-1) for change in changes)
        same_way = np.sign(only[0] - only[1]) == np.sign(round(differences[-1], 12))
        p_values.append(binomtest(only[0], sum(only)).pvalue if same_way and sum(only) else 1.0)
    signs = {np.sign(round(d, 12)) for d in differences}
    mean, half = np.mean(differences), np.mean(halves)
    if len(differences) > 1:
        half = max(half, t_interval(differences)[1] - mean)
    return mean, half, max(p_values) if len(signs) == 1 else 1.0


def of_agresti_and_min(changes, more):
    """Variance of the mean change of a class, with so much of an image more in each cell of the table of pairs."""
    won, lost, alike = (changes.count(value) + (2 if value == 0 else 1) * more for value in (1, -1, 0))
    images = won + lost + alike
    return ((won + lost) / images - ((won - lost) / images) ** 2) / images


def random_board(seed):
    """Methods with some, all or no seeds in common, and classes of any size; labels in any order."""
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(2, 7)), int(rng.integers(2, 5))
    labels = rng.permutation(np.repeat(np.arange(classes), rng.integers(5, 60, classes)))
    hard, skill = rng.random(len(labels)), rng.random(count)
    bits, methods = [], []
    for _ in range(int(rng.integers(1, 5))):
        own = np.flatnonzero(rng.random(count) < 0.8).tolist() or [0]
        methods.append(own)
        bits.append(np.stack([hard + rng.normal(0, 0.2, len(labels)) < skill[m] for m in own]))
    return bits, methods, labels, count


@pytest.mark.parametrize("seed", range(20))
def test_a_board_a_few_pairs_and_the_book_agree(seed):
    bits, methods, labels, count = random_board(seed)
    first, second = np.triu_indices(count, 1)
    found = paired(bits, methods, labels, first, second)
    p_values, signs = np.ones((count, count)), np.zeros((count, count))
    for pair, (i, j) in enumerate(zip(first, second, strict=True)):
        rows = [(own[m.index(i)], own[m.index(j)]) for own, m in zip(bits, methods, strict=True) if {i, j} <= set(m)]
        assert found.seeds[pair] == len(rows)
        swapped = paired(bits, methods, labels, [j], [i])
        if not rows:
            assert found.p_value[pair] == 1 and found.sign[pair] == 0 and np.isnan(found.difference[pair])
            continue
        mean, half, p_value = by_the_book(*zip(*rows, strict=True), labels.tolist())
        assert found.difference[pair] == pytest.approx(mean, abs=1e-12) == -swapped.difference[0]
        assert found.half[pair] == pytest.approx(half, rel=1e-6, abs=1e-12)
        assert found.p_value[pair] == pytest.approx(p_value, rel=1e-9) == swapped.p_value[0]
        p_values[i, j] = p_values[j, i] = p_value
        signs[i, j] = np.sign(mean) * (abs(mean) > half)
        signs[j, i] = -signs[i, j]
    beats = better(bits, methods, labels, count)
    for j in range(count):
        others = [i for i in range(count) if i != j]
        corrected = holm(p_values[j, others])
        assert beats[others, j].tolist() == [
            p < 0.05 and signs[i, j] > 0 for i, p in zip(others, corrected, strict=True)
        ]
    assert not beats.diagonal().any() and not (beats & beats.T).any()


def test_the_boards_of_the_last_test_show_something():
    shown = [better(*random_board(seed)).sum() for seed in range(20)]
    assert sum(map(bool, shown)) > 10


def test_records_are_compared_like_their_bits():
    entries = [
        [synthetic_record(seed=s, robustness=r, method=f"m{i}", tests_per_class=60) for s in own]
        for i, (own, r) in enumerate([((0, 1, 2), 0.9), ((1, 2), 0.5), ((0, 3), 0.7)])
    ]
    bits = [np.stack([r.bits("pgd-20") for e in entries for r in e if r.run.seed == s]) for s in range(4)]
    methods = [[0, 2], [0, 1], [0, 1], [2]]
    labels = entries[0][0].labels()
    worst = [np.stack([r.bits("union") for e in entries for r in e if r.run.seed == s]) for s in range(4)]
    assert (resolved_pairs(entries) == better(worst, methods, labels, 3)).all()
    found = compare([(f"m{i}", e) for i, e in enumerate(entries)], "pgd-20")
    expected = paired(bits, methods, labels, [0, 0], [1, 2])
    overall = [d for d in found if d.group == "all"]
    assert [d.difference for d in overall] == expected.difference.tolist()
    assert [d.p_holm for d in overall] == holm(expected.p_value).tolist()
    assert [d.seeds for d in overall] == [(1, 2), (0,)]
    tail = next(d for d in found if d.group == "tail" and d.second == "m1")
    inside = labels >= 7
    alone = paired([b[:, inside] for b in bits], methods, labels[inside], [0], [1])
    assert (tail.difference, tail.p_value) == (alone.difference[0], alone.p_value[0])
