from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.records.numbers import class_accuracies
from ltrobust_bench.scores.metrics import metrics_from_bits

COUNTS = [10, 40, 20]  # head: class 1, medium: class 2, tail: class 0
BITS = {
    "clean": [1, 1, 0, 0] + [1, 1, 1, 1] + [1, 1, 1, 0],
    "fgsm": [1, 0, 0, 0] + [1, 1, 1, 0] + [1, 1, 0, 0],
    "pgd-20": [0, 1, 0, 0] + [1, 1, 1, 0] + [1, 0, 1, 0],
}


@pytest.fixture
def record():
    return synthetic_record(BITS, train_counts=COUNTS)


def test_summary_by_hand(record):
    clean = record.metrics("clean")
    assert list(clean.per_class) == [0.5, 1.0, 0.75]
    assert (clean.head, clean.medium, clean.tail) == (1.0, 0.75, 0.5)
    assert clean.overall == clean.balanced == 0.75
    assert clean.worst_class == clean.worst_tenth == 0.5
    assert clean.head_tail_gap == 0.5
    assert list(record.metrics("pgd-20").per_class) == [0.25, 0.75, 0.5]


def test_union_is_the_worst_case_per_image_and_not_per_attack(record):
    assert list(record.metrics("union").per_class) == [0.0, 0.75, 0.25]


def test_an_attack_that_was_not_run(record):
    with pytest.raises(KeyError, match="square"):
        record.metrics("square")


def test_balanced_is_not_overall_on_an_unbalanced_test_set():
    found = metrics_from_bits(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1]), [5, 1])
    assert (found.overall, found.balanced) == (0.75, 0.5)
    assert np.isnan([found.head, found.medium, found.tail, found.head_tail_gap]).all()


def test_worst_tenth_of_many_classes():
    classes = 25
    labels = np.repeat(np.arange(classes), 25)
    bits = np.concatenate([np.arange(25) < c for c in range(classes)])
    found = metrics_from_bits(bits, labels, list(range(classes)))
    assert found.worst_class == 0
    assert found.worst_tenth == pytest.approx((0 + 1 + 2) / 3 / 25)  # ceil(25 / 10) = 3 classes
    assert found.head == pytest.approx(np.mean(range(17, 25)) / 25)


def test_labels_in_any_order_and_leading_axes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 50)
    bits = rng.random((2, 3, 50)) < 0.5
    found = metrics_from_bits(bits, labels, [4, 3, 2, 1])
    assert found.per_class.shape == (2, 3, 4) and found.tail.shape == (2, 3)
    assert found.per_class[1, 2, 3] == pytest.approx(bits[1, 2, labels == 3].mean())
    assert found.overall[0, 1] == pytest.approx(bits[0, 1].mean())


def test_a_class_without_test_images_is_left_out():
    found = metrics_from_bits(np.array([1, 0, 1, 1]), np.array([0, 0, 3, 3]), [4, 3, 2, 1])
    assert np.isnan(found.per_class[1]) and np.isnan(found.per_class[2])
    assert (found.balanced, found.worst_class, found.head, found.tail) == (0.75, 0.5, 0.5, 1.0)
    assert np.isnan(found.medium)


@pytest.mark.parametrize(("bits", "labels"), [([1, 0], [0, 1, 1]), ([1, 0], [0, 2]), ([1, 0], [-1, 0])])
def test_shapes_and_labels_that_do_not_fit(bits, labels):
    with pytest.raises(ValueError, match="do not fit"):
        metrics_from_bits(np.array(bits), np.array(labels), [2, 1])


def test_the_fast_path_of_whole_records_agrees():
    record = synthetic_record(seed=3)
    fast = class_accuracies([record], record.attacks)[0]
    for name, row in zip(["clean", *record.attacks, "union"], fast, strict=True):
        assert list(row) == list(record.metrics(name).per_class)


def test_no_torch():
    code = (
        "import ltrobust_bench.scores.metrics, ltrobust_bench.scores.intervals, sys;"
        "import ltrobust_bench.report.figures, ltrobust_bench.report.tables, ltrobust_bench.cli.report;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
