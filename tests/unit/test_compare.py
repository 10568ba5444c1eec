"""Paired comparison of methods: tests by hand, corrections, what is called resolved, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.errors import UsageError
from ltrobust_bench.report.compare import compare, holm, mcnemar, paired_interval, resolved_pairs
from ltrobust_bench.scores.intervals import t_interval


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


def test_what_is_given_for_small_p_values_is_above_them_and_below_what_was_asked():
    first, second = (values.ravel() for values in np.meshgrid(np.arange(60), np.arange(60)))
    exact = mcnemar(first, second)
    for least in (1e-9, 1e-4, 0.05, 2.0):
        found = mcnemar(first, second, least)
        bounds = found != exact
        assert (found[bounds] < least).all() and (found >= exact).all()
        assert bounds.any() and (found[exact >= least] == exact[exact >= least]).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5] and holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


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
        low, high = paired_interval(a, b, labels)
        covered += low <= (first - second).mean() <= high
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


def test_all_pairs_at_once_are_the_pairs_one_by_one():
    """With entries that share some seeds, all, or none."""
    seeds = [(0, 1, 2), (0, 1, 2), (1, 2), (3,), (0,), (0, 1, 2, 3)]
    robustness = [0.9, 0.5, 0.7, 0.6, 0.3, 0.88]
    entries = [
        [synthetic_record(seed=s, robustness=r, method=f"m{i}", tests_per_class=60) for s in own]
        for i, (own, r) in enumerate(zip(seeds, robustness, strict=True))
    ]
    better = resolved_pairs(entries)
    assert better.any() and not (better & better.T).any() and not better.diagonal().any()
    for j, reference in enumerate(entries):
        others = [i for i, own in enumerate(seeds) if i != j and set(own) & set(seeds[j])]
        family = len(entries) - 1
        found = [compare([("j", reference), (str(i), entries[i])])[0] for i in others]
        p_values = [d.p_value for d in found] + [1.0] * (family - len(others))
        corrected = holm(p_values)
        for i, d, p in zip(others, found, corrected, strict=False):
            assert better[i, j] == (p < 0.05 and d.interval[1] < 0), (i, j)
        assert not better[[i for i in range(len(entries)) if i not in others], j].any()
