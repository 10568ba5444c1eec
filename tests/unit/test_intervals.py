from __future__ import annotations

import numpy as np
import pytest

from ltrobust_bench.scores.intervals import effective_images, over_seeds, t_interval, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_newcombe(successes, total, low, high):
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_over_arrays_and_at_the_ends():
    low, high = wilson([0, 10, 5], [10, 10, 0])
    assert low[0] == 0 and high[1] == 1
    assert high[0] == pytest.approx(1 - low[1])
    assert np.isnan(low[2]) and np.isnan(high[2])


def test_a_higher_level_is_wider():
    assert wilson(5, 10, level=0.99)[0] < wilson(5, 10)[0]
    assert t_interval([1.0, 2.0], level=0.99)[0] < t_interval([1.0, 2.0])[0]


def test_t_interval_by_hand():
    # mean 2, standard deviation 1, t(2 degrees, 97.5 %) = 4.302653
    half = 4.302653 / np.sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-6)
    # mean 0.5, standard deviation sqrt(0.5), t(1 degree) = 12.706205
    assert t_interval([0.0, 1.0]) == pytest.approx((0.5 - 6.353102, 0.5 + 6.353102), abs=1e-6)


def test_t_interval_over_the_first_axis():
    low, high = t_interval([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    assert (low[0], high[0]) == pytest.approx(t_interval([1.0, 2.0, 3.0]))
    assert low[1] == high[1] == 5.0


def test_one_seed_has_no_t_interval():
    assert np.isnan(t_interval([0.4])).all()
    assert np.isnan(t_interval([[0.4, 0.5]])[0]).all()


def test_over_seeds_by_hand():
    spread = over_seeds([[0.1, 0.9], [0.2, 0.9], [0.3, 0.9]], np.nan)
    assert spread.mean == pytest.approx([0.2, 0.9]) and spread.std == pytest.approx([0.1, 0.0])
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert spread.high[0] == pytest.approx(0.2 + half, abs=1e-6)
    assert spread.low[0] == 0, "the t interval begins below any accuracy"


def test_one_seed_has_wilsons_interval_where_its_number_is_a_proportion():
    spread = over_seeds([[0.5, 0.1]], [20, np.nan])
    assert np.isnan(spread.std).all() and spread.mean.tolist() == [0.5, 0.1]
    assert (spread.low[0], spread.high[0]) == wilson(10, 20)
    assert np.isnan(spread.low[1]) and np.isnan(spread.high[1])


def test_differences_may_be_negative():
    values = [[-0.1], [0.1]]
    assert over_seeds(values, np.nan, -1.0).low[0] == -1 and over_seeds(values, np.nan).low[0] == 0


def test_effective_images_give_the_balanced_accuracy_its_variance():
    assert effective_images([20, 20, 20]) == pytest.approx(60) and effective_images([20, 20, 0]) == pytest.approx(40)
    counts, p = np.array([50, 10, 5]), 0.3
    draws = np.random.default_rng(0).binomial(counts, p, (200_000, 3)) / counts
    assert draws.mean(axis=1).var() == pytest.approx(p * (1 - p) / effective_images(counts), rel=0.02)
    assert np.isnan(effective_images([]))
