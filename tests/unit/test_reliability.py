"""Every reliability flag is raised by a model that is built to raise it, and none by an honest one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from perceptron import perceptron
from record_factory import measured

from ltrobust_bench import verbs
from ltrobust_bench.attacks.ball import LINF
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.evaluation import examine
from ltrobust_bench.evaluation.demonstration import DEMONSTRATIONS
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.records.numbers import flags_of
from ltrobust_bench.scores.reliability import MEANINGS, flags, moving

SHORT = {"steps": 6, "queries": 300}


@pytest.fixture(scope="module")
def honest(task):
    return perceptron(task, epochs=30)


@pytest.fixture(scope="module")
def task():
    """digits-v0 with the attacks that flags look at, AutoAttack shortened."""
    task = make_task("digits-lt", limit_test=100)
    suite = task.protocol.evaluation
    wanted = [a for a in suite.attacks if a.name in ("pgd-20", "pgd-100", "scaled-pgd-20", "autoattack")]
    short = [a.model_copy(update=SHORT) if a.kind == "autoattack" else a for a in wanted]
    suite = suite.model_copy(update={"attacks": short})
    return replace(task, protocol=task.protocol.model_copy(update={"evaluation": suite}))


def flagged(model, task):
    verdict = verbs.attack_model(model, task, torch.device("cpu"))
    return {flag.name for flag in flags(verdict.bits, verdict.broken_by, verdict.reliability, 10)}


def test_an_honest_model_raises_none(honest, task):
    assert flagged(honest, task) == set()


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_a_model_built_to_fool_is_noticed(honest, task, name):
    make, expected = DEMONSTRATIONS[name]
    assert flagged(make(honest), task) >= set(expected)


RAISED = {
    "random": {"randomness": 0.01},
    "probabilities": {"probabilities": True},
    "flat logits": {"confidence": 0.11},
    "zero gradients": {"zero_gradients": 0.05},
    "robust to anything": {"accuracy_at_half": 0.2},
    "not monotone": {"accuracy_by_radius": {"0.25": 0.8, "1": 0.4, "2": 0.6}},
    "batch": {"batch_dependence": 0.05},
    "state": {"state_changed": True},
}


def half(*shares, size=1000):
    """Bits of attacks that are right on the first so many images."""
    return {name: np.arange(size) < share * size for name, share in shares}


@pytest.mark.parametrize("name", RAISED)
def test_measurements_and_their_thresholds(name):
    bits = half(("clean", 1.0))
    assert flags(bits, None, measured(), 10) == []
    (flag,) = flags(bits, None, measured(**RAISED[name]), 10)
    assert flag.name == name and flag.meaning == MEANINGS[name]


def test_chance_at_epsilon_half_counts_the_classes_and_the_images():
    """1/C + 3 SE: 16.4 % of 200 images with 10 classes; 4 % with 100 classes."""
    for classes, accuracy, raised in ((10, 0.16, False), (10, 0.17, True), (100, 0.03, False), (100, 0.035, True)):
        seen = measured(accuracy_at_half=accuracy)
        assert bool(flags(half(("clean", 1.0)), None, seen, classes)) == raised


def test_flags_from_bits():
    scaled = half(("clean", 0.9), ("pgd-20", 0.6), ("pgd-100", 0.6), ("scaled-pgd-20", 0.5))
    assert [f.name for f in flags(scaled, None, None, 10)] == ["scaled logits"]
    steps = half(("clean", 0.9), ("pgd-20", 0.6), ("pgd-100", 0.5), ("scaled-pgd-20", 0.5))
    assert [f.name for f in flags(steps, None, None, 10)] == ["PGD not converged"]
    by_square = np.where(np.arange(1000) < 20, 4, 0)
    assert [f.name for f in flags(half(("clean", 0.9)), by_square, None, 10)] == ["square"]
    assert flags(half(("clean", 0.9)), np.where(np.arange(1000) < 5, 4, 1), None, 10) == []


def test_every_flag_has_a_model_that_is_built_to_raise_it():
    assert set(MEANINGS) == {flag for _, raised in DEMONSTRATIONS.values() for flag in raised}
    assert set(MEANINGS) == {*RAISED, "scaled logits", "PGD not converged", "square"}


def test_measured_labels_do_not_depend_on_order(honest, task):
    """Images are put back in their places after they were mixed."""
    x, y = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
    on = Target(honest, 10, 0.1, LINF, 0, x.device)
    assert examine.batch_dependence(on, x, y, 5) == 0.0


def test_a_random_models_answers_say_nothing_about_the_batch():
    moved = {"batch_dependence": 1.0}
    assert set(moving(0.0, 1.0, False)) == {"batch"} and set(moving(0.01, 1.0, True)) == {"random", "state"}
    assert "batch" not in {f.name for f in flags(half(("clean", 1.0)), None, measured(**moved, randomness=0.1), 10)}


def test_first_places_takes_the_first_of_each_class():
    labels = np.array([0, 0, 0, 2, 2, 5])
    assert examine.first_places(labels, 2).tolist() == [True, True, False, True, True, True]


def test_reliability_is_in_the_record_and_on_resume(tmp_path):
    record = verbs.run("at", "digits-lt", protocol="smoke", runs_dir=tmp_path, results_dir=None, device="cpu")
    assert record.reliability is not None and record.reliability.images == 20
    assert not record.reliability.state_changed and isinstance(flags_of(record), list)
    assert record.result.digest == type(record.result).digest_of(record.result.bits, record.result.broken_by)
