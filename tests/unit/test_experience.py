"""What jobs take on other devices, told from records."""

from __future__ import annotations

import pytest
from record_factory import synthetic_record

from ltrobust_bench.executors.base import Place
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.sweeps.experience import told_by
from ltrobust_bench.sweeps.jobs import left_of, pieces_of


def record_of(piece, device, training, evaluation, **environment):
    """Of a job's run: seconds for all its steps, and for all its test images."""
    made = synthetic_record()
    cost = made.cost.model_copy(
        update={
            "optimizer_steps": max(1, piece.plan.budget),
            "training": made.cost.training.model_copy(update={"seconds": training}),
            "evaluation": made.cost.evaluation.model_copy(update={"seconds": evaluation}),
        }
    )
    env = made.environment.model_copy(update={"device": device, "threads": 1, **environment})
    return made.model_copy(update={"run": piece.plan.run, "cost": cost, "environment": env})


@pytest.fixture
def left(tmp_path):
    asked = [Request(method, "digits-lt", protocol="smoke", seed=seed) for method in ("at", "reat") for seed in (0, 1)]
    place = Place(runs_dir=tmp_path / "runs", results_dir=None, data_dir=None, device="cpu", threads=1)
    return left_of(pieces_of(asked, place), lambda job: False)


def test_jobs_take_what_such_jobs_took_there(left):
    at = next(piece for name, piece in left.items() if name.startswith("at-") and piece.job.kind == "train")
    records = [record_of(at, "Card A", seconds, 50.0) for seconds in (10.0, 20.0, 90.0)]
    records += [record_of(at, "Core B (CPU)", 1000.0, 7.0)]
    told = told_by(records, left)
    # Two trainings of `at` at the median pace, and all four evaluations; of `reat` no training was seen.
    assert told["Card A"] == (pytest.approx(2 * 20.0 + 4 * 50.0), 6, 3)
    assert told["Core B (CPU), 1 thread"] == (pytest.approx(2 * 1000.0 + 4 * 7.0), 6, 1)


def test_another_budget_is_scaled_and_another_way_of_computing_is_not_told(tmp_path, left):
    at = next(piece for piece in left.values() if piece.plan.run.method == "at" and piece.job.kind == "train")
    place = Place(runs_dir=tmp_path / "runs", results_dir=None, data_dir=None, device="cpu", threads=1)
    longer = pieces_of([Request("at", "digits-lt", protocol="smoke", epochs=2 * at.plan.run.recipe.epochs)], place)
    told = told_by([record_of(at, "Card A", 10.0, 50.0)], longer)
    assert told["Card A"] == (pytest.approx(20.0 + 50.0), 2, 1)
    folded = pieces_of([Request("at", "digits-lt", protocol="smoke", policy=Policy(crafting="folded"))], place)
    assert told_by([record_of(at, "Card A", 10.0, 50.0)], folded)["Card A"] == (pytest.approx(50.0), 1, 1)


def test_several_cards_are_a_class_of_their_own_and_without_records_nothing_is_told(left):
    at = next(iter(left.values()))
    assert set(told_by([record_of(at, "Card A", 1.0, 1.0, devices=4)], left)) == {"Card A x 4"}
    assert told_by([], left) == {}
