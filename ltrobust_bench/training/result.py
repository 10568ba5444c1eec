"""What a training comes to: the finished network in its run folder, its cost and history."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.plan.code import Code, refuse_other_code
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Progress
from ltrobust_bench.terms import first_problem
from ltrobust_bench.training.checkpoint import read_model
from ltrobust_bench.training.losses import EXPLODED, exploded

MODEL = "model.safetensors"


@dataclass
class TrainingCost:
    """What training cost: finished epochs of all sessions. Work lost to an interruption is not counted."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    steps: int = 0

    def __add__(self, other: TrainingCost) -> TrainingCost:
        mine, theirs = asdict(self), asdict(other)
        return TrainingCost(**{name: mine[name] + theirs[name] for name in mine})


@dataclass
class TrainingResult:
    """A finished training.

    Attributes:
        model_path: ``model.safetensors``, self-describing.
        cost: of all sessions together, and of the run it builds on.
        forwards_here: images passed forward by this call (0 if the run was already finished).
        history: one row per epoch.
        code: that of all sessions, those of the run it builds on included; empty if it was trained before code was
            recorded.
        exploded: epochs whose loss was finite but far beyond that of guessing, see
            :func:`~ltrobust_bench.training.losses.exploded`.
    """

    model_path: Path
    cost: TrainingCost
    forwards_here: int
    history: list[dict[str, Any]] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)
    exploded: list[int] = field(default_factory=list)


def finished(plan: Plan, path: Path, progress: Progress) -> TrainingResult:
    """The result that lies in a run folder already.

    Raises:
        CheckpointError: if it is damaged, another run's, or trained by other code.
    """
    _, description = read_model(path)
    try:
        if RunSection.model_validate(description["run"]).key() != plan.run.key():
            raise CheckpointError(f"{path} belongs to another run; delete it to train again.")
        code = [Code.model_validate(session) for session in description.get("code", [])]
        refuse_other_code(plan, path.parent, code)
        if not code:
            progress.note(f"{path} was trained before code was recorded, so no board accepts its record")
        cost = TrainingCost(**description["cost"])
        return told(TrainingResult(path, cost, 0, description["history"], code), plan, progress)
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{path} does not say what it is ({first_problem(error)}); delete it.") from None


def told(result: TrainingResult, plan: Plan, progress: Progress) -> TrainingResult:
    """A result, with a word on what its history says against it."""
    result.exploded = exploded([row["loss"] for row in result.history], plan.task.classes)
    if result.exploded:
        progress.note(
            f"flag: the loss exploded: its mean was more than {EXPLODED} times that of guessing (ln C) in epoch "
            f"{', '.join(map(str, result.exploded))} of {plan.run.method}"
        )
    return result


def history_csv(rows: list[dict[str, Any]]) -> str:
    """A history as ``training.csv`` holds it."""
    text = io.StringIO()
    columns = ["epoch", "lr", "loss", "train_clean", "train_robust"]
    columns += [name for name in ("val_clean", "val_robust", "undone") if any(name in row for row in rows)]
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
