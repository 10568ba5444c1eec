"""Runs from their request to the record: train, run, finish_run."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch

from ltrobust_bench.cards import methods
from ltrobust_bench.compute import ranks
from ltrobust_bench.compute.device import choose_device, started
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.evaluation.evaluator import Verdict, frozen
from ltrobust_bench.evaluation.state import kept_identity
from ltrobust_bench.files import make_folder
from ltrobust_bench.machine import device_name
from ltrobust_bench.notebook import usual_progress
from ltrobust_bench.plan.code import code_of, difference
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.request import Request, takes_request
from ltrobust_bench.plan.task import Task
from ltrobust_bench.progress import Ended, Progress, Warned
from ltrobust_bench.protocol.spec import Search
from ltrobust_bench.records.filing import file_record, unfit_note
from ltrobust_bench.records.io import read_record, write_record
from ltrobust_bench.records.provenance import environment
from ltrobust_bench.records.schema import Cost, Record, Result, Searched, Status, Work
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.terms import canonical_digest
from ltrobust_bench.tracking.runlog import logged
from ltrobust_bench.training.folder import locked
from ltrobust_bench.training.result import TrainingCost, TrainingResult
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs.evaluations import attack_model, possible_search
from ltrobust_bench.verbs.loading import LoadedModel, load_model, own_record
from ltrobust_bench.verbs.trials import tuned_plan

RUNS, RESULTS = Path("runs"), Path("results")


@takes_request
@undisturbed()
def train(
    request: Request,
    *,
    data_dir: Path | str | None = None,
    runs_dir: Path | str = RUNS,
    device: str = "auto",
    fresh: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a defense; going on where an interrupted call of the same run stopped.

    Args:
        request: what is asked for, or its method, data set and other fields: see :class:`Request`.
        data_dir: folder or archive of the data set.
        runs_dir: where run folders live.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        fresh: begin again: what is in the run folder is removed.
        progress: what to report to; default: in a notebook a line in the cell, elsewhere nothing.

    Returns:
        Path of the finished network, its cost and history.

    Raises:
        CheckpointError: if the run folder holds what other code has trained; see ``fresh``.

    Example: ``train("at", "digits-lt", seed=1)``
    """
    plan, progress = request.to_plan(data_dir), usual_progress(progress)
    folder = Path(runs_dir) / plan.run.folder_name()
    _warn(plan, progress)
    return train_plan(plan, folder, choose_device(device), progress, fresh=fresh)


@takes_request
@undisturbed()
def run(
    request: Request,
    *,
    tuned: Path | str | None = None,
    data_dir: Path | str | None = None,
    runs_dir: Path | str = RUNS,
    results_dir: Path | str | None = RESULTS,
    device: str = "auto",
    fresh: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Train a defense, attack it with the protocol's suite, and write its record.

    A finished run is not repeated: its record is read and returned.

    Args:
        tuned: what :func:`~ltrobust_bench.verbs.tuning.tune` wrote; its settings are taken, and the record says how
            many were tried.
        results_dir: where records are filed that a board accepts (a full run of committed code), below ``records/``;
            None: only in the run folder.
        others: see :func:`train`.

    Raises:
        CheckpointError: if the run folder holds what other code has trained or attacked; see ``fresh``.
    """
    plan, trials = tuned_plan(request, tuned, data_dir)
    progress = usual_progress(progress)
    _warn(plan, progress)
    return run_plan(
        plan,
        runs_dir=Path(runs_dir),
        results_dir=None if results_dir is None else Path(results_dir),
        device=choose_device(device),
        trials=trials,
        fresh=fresh,
        progress=progress,
    )


def _warn(plan: Plan, progress: Progress) -> None:
    """Say what a plan makes of a folder of images, what looks wrong with them, and if no board will accept its
    record."""
    note = unfit_note(plan.run, [code_of(plan.run, "training")])
    for line in plan.task.source.notes:
        progress.note(line)
    for line in (*plan.task.source.warnings, *([note] if note else [])):
        progress.tell(Warned(line))


def run_plan(
    plan: Plan,
    *,
    runs_dir: Path,
    results_dir: Path | None,
    device: torch.device,
    progress: Progress,
    trials: int = 0,
    fresh: bool = False,
) -> Record:
    """:func:`run` for a plan that is already made."""
    folder = runs_dir / plan.run.folder_name()
    plan.task.source.test_places(plan.task.split.test)  # what cannot be attacked in the end is not begun
    make_folder(folder)
    result = train_plan(plan, folder, device, progress, fresh=fresh)
    loaded = load_model(result.model_path, device=str(device))
    return finish_run(loaded, plan.task, folder, results_dir, progress, trials=trials)


@undisturbed()
def finish_run(
    loaded: LoadedModel,
    task: Task,
    folder: Path | None,
    results_dir: Path | None,
    progress: Progress,
    *,
    trials: int = 0,
    again: bool = False,
    search: Search | None = None,
) -> Record:
    """Attack a finished network with its protocol's whole suite, and write and file its record.

    Args:
        loaded: the network.
        task: its data set under its protocol.
        folder: its run folder, which keeps the evaluation's state (so that it can go on) and the record; a finished
            record there is reused. None: the record is only filed.
        results_dir: where full records are filed; None: nowhere.
        trials: configurations tried on held-out images before this run, beside those that the method's card tells of.
        again: attack again although there is a record.
        search: what the attacks climb, where it is to differ from the protocol's; the network itself confirms every
            success, in float32.

    Raises:
        RecordError: if the record in ``folder`` is damaged or another run's.
        CheckpointError: if other code than this made it.
    """
    if results_dir is not None:
        make_folder(results_dir)
    search = search or _usual_search(loaded, task, progress)
    trials += methods.get(loaded.run.method).card.trials
    if folder is None:
        record = _evaluate(loaded, task, None, "", progress, trials, search)
    else:
        with locked(folder), logged(folder if ranks.first() else None, progress) as heard:
            record = _finished_or_evaluated(loaded, task, folder, heard, trials, again, search)
    if results_dir is not None and ranks.first():
        progress.note(file_record(record, results_dir))
    return record


def _usual_search(loaded: LoadedModel, task: Task, progress: Progress) -> Search:
    """What the protocol says, where there is such a copy of the model; the network itself for a run that left the
    protocol's way of crafting for it."""
    protocol = task.protocol
    if loaded.run.policy.crafting == "network" != protocol.crafting:
        return "network"
    x = to_unit(torch.from_numpy(task.source.test_pixels(task.split.test[:2])).to(loaded.device))
    with frozen(loaded.model):
        return possible_search(loaded.model, x, protocol.evaluation.search, progress)


def _finished_or_evaluated(
    loaded: LoadedModel, task: Task, folder: Path, progress: Progress, trials: int, again: bool, search: Search
) -> Record:
    """The record in a run folder that the caller holds, made if there is none or it is asked for again."""
    path, state = folder / "record.json", folder / "evaluation.npz"
    identity = ranks.from_first(lambda: _identity(loaded, search, path))
    earlier = ranks.from_first(lambda: _recorded(path, loaded, trials, again, search, progress))
    if earlier is not None and not again:
        if ranks.first() and state.exists() and kept_identity(state) != identity:
            state.unlink()  # of the evaluation that made the record; nobody was left to tidy it up
        return earlier
    if earlier is not None:
        trials = max(trials, earlier.status.trials)
    began = time.monotonic()
    record = _evaluate(loaded, task, state, identity, progress, trials, search)
    if ranks.first():
        write_record(record, path)
        state.unlink(missing_ok=True)
    progress.tell(Ended("evaluation", time.monotonic() - began))
    return record


def _recorded(
    path: Path, loaded: LoadedModel, trials: int, again: bool, search: Search, progress: Progress
) -> Record | None:
    """The record in a file, None without one; it must be the network's, unless it is made again."""
    if not path.exists():
        return None
    if again:
        return read_record(path)
    record = own_record(path, loaded)
    _refuse_other_code(path, record)
    other = f", whose attacks climbed: {record.result.search}" if record.result.search != search else ""
    progress.note(f"already finished: reusing {path}{other}")
    if record.status.trials < trials:  # it was run before its settings were found again by tuning
        record = record.model_copy(update={"status": record.status.model_copy(update={"trials": trials})})
        write_record(record, path)
    return record


def _refuse_other_code(path: Path, record: Record) -> None:
    now = code_of(record.run, "evaluation")
    for code in record.environment.code:
        found = difference(code, now) if code.work == "evaluation" else ""
        if found:
            raise CheckpointError(
                f"{path} was made by other code: {found}; restore that code, or attack again with `ltbench eval "
                f"{path.parent} --again`."
            )


def _identity(loaded: LoadedModel, search: Search, record: Path) -> str:
    """What an evaluation's state belongs to. The record that the evaluation will replace is part of it: once there is
    a new one, the state that made it is nobody's, or another evaluation would take it for its own and attack nothing.
    """
    code = code_of(loaded.run, "evaluation")
    replaced = hashlib.sha256(record.read_bytes()).hexdigest() if record.exists() else None
    return canonical_digest(
        [loaded.weights_sha256, loaded.run.key(), code.method_sha256, code.package_sha256, search, replaced]
    )


def _evaluate(
    loaded: LoadedModel,
    task: Task,
    state: Path | None,
    identity: str,
    progress: Progress,
    trials: int,
    search: Search,
) -> Record:
    """The record of one evaluation."""
    code = code_of(loaded.run, "evaluation")
    device = loaded.device
    progress.tell(started(loaded.run, "evaluation", device))
    verdict = attack_model(
        loaded.model, task, device, identity=identity, state_path=state, progress=progress, search=search, code=code
    )
    bits = {name: pack(value, 1) for name, value in verdict.bits.items()}
    broken_by = None if verdict.broken_by is None else pack(verdict.broken_by, 3)
    digest = Result.digest_of(bits, broken_by)
    cost = loaded.cost
    evaluating = Work(forwards=verdict.forwards, backwards=verdict.backwards, seconds=round(verdict.seconds, 3))
    return Record(
        schema_version=1,
        run=loaded.run,
        result=Result(
            bits=bits,
            broken_by=broken_by,
            search=search,
            searched=_searched(verdict),
            weights_sha256=loaded.weights_sha256,
            digest=digest,
        ),
        cost=Cost(
            training=_work(cost),
            evaluation=evaluating,
            optimizer_steps=cost.steps,
            base=_work(loaded.base_cost) if loaded.base_cost else None,
        ),
        environment=environment(
            device_name(str(device)),
            torch.get_num_threads(),
            loaded.run.recipe.precision,
            [*loaded.code, *verdict.code],
            ranks.count(),
        ),
        status=Status(
            reduced=loaded.run.reduced,
            off_recipe=loaded.run.off_recipe,
            exploded=loaded.exploded,
            trials=trials,
        ),
        reliability=verdict.reliability,
    )


def _searched(verdict: Verdict) -> Searched | None:
    if verdict.searched is None:
        return None
    confirmed, unconfirmed, broken_again = verdict.searched
    return Searched(confirmed=confirmed, unconfirmed=unconfirmed, broken_again=broken_again)


def _work(cost: TrainingCost) -> Work:
    return Work(forwards=cost.forwards, backwards=cost.backwards, seconds=round(cost.seconds, 3))
