"""The verbs as functions: run, train, evaluate, load_model. ``ltbench`` is a thin shell around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ltrobust_bench._version import __version__
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.data.split import first_of_each_class
from ltrobust_bench.errors import CheckpointError, RecordError, UnknownNameError, UsageError
from ltrobust_bench.evaluation.analysis import Analysis, Classes, analysis_of
from ltrobust_bench.evaluation.curves import CURVES, Curve, CurveKind, trace
from ltrobust_bench.evaluation.evaluator import Verdict, evaluate_images, frozen
from ltrobust_bench.evaluation.examine import first_places
from ltrobust_bench.evaluation.foreign import check_input
from ltrobust_bench.evaluation.metrics import Metrics, metrics_from_bits
from ltrobust_bench.evaluation.observe import observe
from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.evaluation.suite import SINGLE, TRANSFER
from ltrobust_bench.files import make_folder
from ltrobust_bench.models.stand_in import StandIn
from ltrobust_bench.plan import Plan, Task, make_plan, make_task
from ltrobust_bench.progress import Named, Progress, Silent
from ltrobust_bench.protocol import EvalAttack, Protocol, load_protocol
from ltrobust_bench.protocol.load import first_problem
from ltrobust_bench.protocol.spec import canonical_digest
from ltrobust_bench.records.io import read_record, write_record
from ltrobust_bench.records.provenance import device_name, environment
from ltrobust_bench.records.schema import Cost, Crafting, Record, Result, RunSection, Status, Work, pack
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.build import choose_device, load_deployed
from ltrobust_bench.training.estimate import evaluation_cost
from ltrobust_bench.training.trainer import TrainingCost, TrainingResult, locked, train_plan

Model = nn.Module | Callable[[Tensor], Tensor] | str | Path
"""What can be evaluated: a module or function from [0, 1] pixels to logits, or the path of a network of ours."""
Search = Literal["network", "folded", "winograd", "bf16"]
"""What attacks climb: the network itself, or a faster copy of it (:mod:`ltrobust_bench.models.stand_in`)."""
RUNS, RESULTS = Path("runs"), Path("results")
EXAMINED = 200
"""Test images on which a model's reliability is measured."""


@dataclass(frozen=True)
class LoadedModel:
    """A finished network of ours, ready to be used.

    Attributes:
        model: pixels in [0, 1], shape [B, channels, height, width], to logits [B, C]; in eval mode.
        run: what it is a result of.
        class_names: one per label.
        cost: of its training, and of the run it builds on.
        base_cost: of the run it builds on, if there is one.
        weights_sha256: digest of its tensors.
    """

    model: nn.Module
    run: RunSection
    class_names: tuple[str, ...]
    cost: TrainingCost
    base_cost: TrainingCost | None
    weights_sha256: str


def train(
    method: str,
    dataset: str,
    *,
    runs_dir: Path | str = RUNS,
    device: str = "auto",
    progress: Progress | None = None,
    **request: Any,
) -> TrainingResult:
    """Train a defense; going on where an interrupted call of the same run stopped.

    Args:
        method, dataset: names, see ``ltbench list``.
        runs_dir: where run folders live.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: what to report to; default: nothing.
        **request: see :func:`ltrobust_bench.plan.make_plan` (protocol, track, seed, settings, ...).

    Returns:
        Path of the finished network, its cost and history.
    """
    plan = make_plan(method, dataset, **request)
    return train_plan(plan, Path(runs_dir) / plan.run.folder_name(), choose_device(device), progress)


def run(
    method: str,
    dataset: str,
    *,
    runs_dir: Path | str = RUNS,
    results_dir: Path | str | None = RESULTS,
    device: str = "auto",
    trials: int = 0,
    progress: Progress | None = None,
    **request: Any,
) -> Record:
    """Train a defense, attack it with the protocol's suite, and write its record.

    A finished run is not repeated: its record is read and returned.

    Args:
        results_dir: where full (not reduced) records are filed, below ``records/``; None: only in the run folder.
        trials: configurations tried on a validation split before this one, for the record.
        others: see :func:`train`.
    """
    return run_plan(
        make_plan(method, dataset, **request),
        runs_dir=Path(runs_dir),
        results_dir=None if results_dir is None else Path(results_dir),
        device=choose_device(device),
        trials=trials,
        progress=progress or Silent(),
    )


def run_plan(
    plan: Plan,
    *,
    runs_dir: Path,
    results_dir: Path | None,
    device: torch.device,
    progress: Progress,
    trials: int = 0,
) -> Record:
    """:func:`run` for a plan that is already made."""
    folder = runs_dir / plan.run.folder_name()
    make_folder(folder)
    result = train_plan(plan, folder, device, progress)
    loaded = load_model(result.model_path, device=str(device))
    return finish_run(loaded, plan.task, folder, results_dir, progress, trials=trials)


def finish_run(
    loaded: LoadedModel,
    task: Task,
    folder: Path | None,
    results_dir: Path | None,
    progress: Progress,
    *,
    trials: int = 0,
    again: bool = False,
    search: Crafting = "network",
) -> Record:
    """Attack a finished network with its protocol's whole suite, and write and file its record.

    Args:
        loaded: the network.
        task: its data set under its protocol.
        folder: its run folder, which keeps the evaluation's state (so that it can go on) and the record; a finished
            record there is reused. None: the record is only filed.
        results_dir: where full records are filed; None: nowhere.
        trials: configurations tried on a validation split before this run.
        again: attack again although there is a record.
        search: what the attacks climb; the network itself confirms every success.

    Raises:
        RecordError: if the record in ``folder`` is damaged or another run's.
    """
    if results_dir is not None:
        make_folder(results_dir)
    if folder is None:
        record = _evaluate(loaded, task, None, progress, trials, search)
    else:
        with locked(folder):
            path, state = folder / "record.json", folder / "evaluation.npz"
            _forget_recorded(state, path)
            if path.exists() and not again:
                record = _own_record(path, loaded)
                progress.note(f"already finished: reusing {path}")
            else:
                if path.exists():
                    trials = read_record(path).status.trials
                record = _evaluate(loaded, task, state, progress, trials, search)
                write_record(record, path)
                state.unlink(missing_ok=True)
    if results_dir is not None:
        file_record(record, results_dir, progress)
    return record


def _own_record(path: Path, loaded: LoadedModel) -> Record:
    """The record in a file, which must be that of the network."""
    record = read_record(path)
    if (record.run.key(), record.result.weights_sha256) != (loaded.run.key(), loaded.weights_sha256):
        raise RecordError(f"{path} belongs to another run; delete it to evaluate again.")
    return record


def _forget_recorded(state: Path, record: Path) -> None:
    """Remove the state of an evaluation whose record was written just before the process was killed: another one
    would take it for its own, and attack nothing."""
    if state.exists() and record.exists() and state.stat().st_mtime_ns <= record.stat().st_mtime_ns:
        state.unlink()


def _evaluate(
    loaded: LoadedModel, task: Task, state: Path | None, progress: Progress, trials: int, search: Crafting
) -> Record:
    """The record of one evaluation."""
    identity = canonical_digest([loaded.weights_sha256, loaded.run.key(), __version__, search])
    device = next((p.device for p in loaded.model.parameters()), torch.device("cpu"))
    verdict = _attack(loaded.model, task, device, identity, state, progress, search=search)
    bits = {name: pack(value, 1) for name, value in verdict.bits.items()}
    broken_by = None if verdict.broken_by is None else pack(verdict.broken_by, 3)
    digest = Result.digest_of(bits, broken_by)
    cost = loaded.cost
    evaluating = Work(forwards=verdict.forwards, backwards=verdict.backwards, seconds=round(verdict.seconds, 3))
    return Record(
        schema_version=1,
        run=loaded.run,
        result=Result(
            bits=bits, broken_by=broken_by, search=search, weights_sha256=loaded.weights_sha256, digest=digest
        ),
        cost=Cost(
            training=_work(cost),
            evaluation=evaluating,
            optimizer_steps=cost.steps,
            base=_work(loaded.base_cost) if loaded.base_cost else None,
        ),
        environment=environment(device_name(str(device)), torch.get_num_threads(), loaded.run.recipe.precision),
        status=Status(reduced=loaded.run.reduced, off_recipe=bool(loaded.run.overrides), trials=trials),
        reliability=verdict.reliability,
    )


def _work(cost: TrainingCost) -> Work:
    return Work(forwards=cost.forwards, backwards=cost.backwards, seconds=round(cost.seconds, 3))


def file_record(record: Record, results_dir: Path, progress: Progress) -> Path | None:
    """Put a full record in its place below ``results_dir``; what lies there already is never changed. Returns the
    place, or None if it was not filed."""
    if record.run.reduced or load_protocol(record.run.protocol).status == "smoke":
        progress.note("a reduced or smoke run: it joins no board, and its record is not filed")
        return None
    path = results_dir / "records" / record.run.record_path()
    if path.exists() and read_record(path).result.digest != record.result.digest:
        progress.note(f"{path} holds another result of the same run; records are append-only, so it stays")
        return None
    if not path.exists():
        write_record(record, path)
    progress.note(f"filed: {path}")
    return path


def evaluate(
    model: Model,
    dataset: str | None = None,
    *,
    protocol: str | None = None,
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    attacks: list[str] | None = None,
    transfer_from: nn.Module | str | Path | None = None,
    limit_test: int | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    state: Path | None = None,
    search: Search = "network",
    progress: Progress | None = None,
) -> Evaluation:
    """Attack any model with a protocol's suite.

    Args:
        model: a torch module (or function) from images in [0, 1], float32 [B, channels, height, width], to logits
            [B, C]; normalisation belongs inside it. Or the path of a network of ours.
        dataset: its data set; for a network of ours its own.
        protocol: whose suite and epsilon; default: the data set's.
        imbalance_ratio, profile: of the training set, which define head, medium and tail.
        attacks: names of some of the suite's attacks, or of ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``fab-t`` and
            ``square``; default: the suite.
        transfer_from: a second model (as ``model``), on which PGD-20 is crafted as the attack ``transfer``.
        limit_test: first limit // C test images of each class.
        data_dir: folder or archive of the data set.
        device: where to compute; ``auto``: where the model is.
        state: file that keeps what is done, so that an interrupted call goes on; removed at the end. It is ignored if
            it belongs to other weights, images or attacks. A plain function has no weights to tell, so none is kept.
        search: what the attacks climb: the ``network`` itself, or a faster copy of it, ``folded``, ``winograd`` or
            ``bf16``. The network itself confirms every success.

    Returns:
        One bit per image and attack, and the metrics derived from them.

    Raises:
        UsageError: for unknown names or a network of another data set.
        CheckFailed: if the model does not return finite logits [B, C], or needs normalised input.
    """
    module, task, where = _subject(
        model,
        dataset,
        device,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        limit_test=limit_test,
        data_dir=data_dir,
    )
    chosen = suite_attacks(task.protocol, attacks)
    surrogate = None
    if transfer_from is not None:
        other = load_model(transfer_from, str(where)).model if isinstance(transfer_from, (str, Path)) else transfer_from
        surrogate = other.to(where).eval()
        chosen = [*(chosen or []), TRANSFER]
    identity = ""
    if state is not None and module.state_dict():
        make_folder(state.parent)
        identity = canonical_digest([_identity_of(module, task, chosen, surrogate), search])
    verdict = _attack(module, task, where, identity, state if identity else None, progress, chosen, surrogate, search)
    if state is not None:
        state.unlink(missing_ok=True)
    labels = task.source.test_labels[task.split.test]
    return Evaluation(
        verdict.bits,
        labels,
        task.split.train_counts,
        verdict.broken_by,
        verdict.forwards,
        verdict.backwards,
        verdict.seconds,
        verdict.reliability,
    )


def _identity_of(module: nn.Module, task: Task, attacks: list[EvalAttack] | None, surrogate: nn.Module | None) -> str:
    """Digest of what an evaluation's verdict depends on, as far as it can be told: code is known by its name only."""
    return canonical_digest(
        [
            f"{type(module).__module__}.{type(module).__qualname__}",
            ckpt.weights_sha256(module.state_dict()),
            ckpt.weights_sha256(surrogate.state_dict()) if surrogate is not None else None,
            task.protocol.digest(task.spec.name),
            task.split.test_sha256,
            task.source.sha256,
            task.epsilon,
            None if attacks is None else [attack.model_dump(mode="json") for attack in attacks],
            __version__,
        ]
    )


def curve(
    model: Model,
    kind: CurveKind,
    dataset: str | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    **terms: Any,
) -> Curve:
    """Robust accuracy along a growing radius (``eps``) or number of PGD steps (``steps``).

    Args:
        model, dataset, device, progress: see :func:`evaluate`.
        **terms: protocol, imbalance_ratio, profile, limit_test, data_dir, see :func:`evaluate`.

    Raises:
        UnknownNameError: for another kind.
        UsageError, CheckFailed: see :func:`evaluate`.
    """
    if kind not in CURVES:
        raise UnknownNameError("curve", kind, CURVES)
    module, task, where = _subject(model, dataset, device, **terms)
    labels, counts = task.source.test_labels[task.split.test], task.split.train_counts

    def measure(attack: EvalAttack, epsilon: float) -> Metrics:
        at, name = replace(task, epsilon=epsilon), f"{attack.name} at {epsilon:.3g}"
        bits = _attack(module, at, where, "", None, Named(progress or Silent(), name), [attack]).bits[attack.name]
        return metrics_from_bits(bits, labels, counts)

    clean = metrics_from_bits(_attack(module, task, where, "", None, progress, []).bits["clean"], labels, counts)
    return trace(kind, task.epsilon, len(labels), measure, clean)


def analyse(
    network: Path | str,
    *,
    limit_test: int | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Analysis:
    """What a finished network of ours does class by class: natural and boundary error, where attacked images end,
    norms of features and class vectors, margins.

    Errors are those of the worst case over the suite where there is a record beside the network, else of the
    protocol's first PGD attack, as everything else under attack.

    Args:
        network: its run folder, or ``model.safetensors``.
        limit_test: first limit // C test images of each class; then no record is used.
        data_dir: folder or archive of the data set.
        device: where to compute.
        progress: what to report to; default: nothing.

    Raises:
        CheckpointError: if the network is damaged, or its data set's split is not what it was.
        RecordError: if the record beside it is damaged or another run's.
        UsageError: for a limit that leaves classes empty.
    """
    loaded = load_model(network, device)
    task = task_of(loaded.run, data_dir)
    beside = Path(network) if Path(network).is_dir() else Path(network).parent
    path = beside / "record.json"
    record = _own_record(path, loaded) if limit_test is None and path.exists() else None
    labels = np.asarray(task.source.test_labels)
    index = first_of_each_class(labels, task.split.test, limit_test)
    seen = observe(
        loaded.model,
        DeviceData.of(task.source.test_images[index], labels[index], choose_device(device)),
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        progress=progress or Silent(),
    )
    tested = np.bincount(labels[index], minlength=task.classes).tolist()
    return analysis_of(loaded.run, Classes(loaded.class_names, loaded.run.train_counts, tested), seen, record)


def _subject(
    model: Model,
    dataset: str | None,
    device: str,
    *,
    protocol: str | None = None,
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    **terms: Any,
) -> tuple[nn.Module, Task, torch.device]:
    """A model ready to be attacked, its task, and where it is; of a network of ours what is not given is its own."""
    if isinstance(model, (str, Path)):
        loaded = load_model(Path(model), device=device)
        own = loaded.run
        if dataset is not None and dataset != own.dataset:
            raise CheckpointError(f"{model} was trained on {own.dataset}, not on {dataset}.")
        dataset, protocol = own.dataset, protocol or own.protocol
        imbalance_ratio, profile = imbalance_ratio or own.asked_ratio, profile or own.profile
        module: nn.Module = loaded.model
    elif dataset is None:
        raise UsageError("evaluate(model, dataset) needs the name of a data set; `ltbench list datasets` shows them.")
    else:
        module = model if isinstance(model, nn.Module) else _Function(model)
    own_device = next((p.device for p in module.parameters()), None)
    where = own_device if device == "auto" and own_device is not None else choose_device(device)
    task = make_task(
        dataset,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        **terms,
    )
    module = module.to(where)
    if not isinstance(model, (str, Path)):
        _check_foreign(module, task, where)
    return module, task, where


def _check_foreign(module: nn.Module, task: Task, device: torch.device) -> None:
    """See that a model that is not ours takes the data set's pixels, or say what it does instead."""
    labels = np.asarray(task.source.test_labels[task.split.test])
    first = np.flatnonzero(first_places(labels, max(1, EXAMINED // task.classes)))
    data = DeviceData.of(task.source.test_images[task.split.test[first]], labels[first], device)
    with frozen(module):
        check_input(module, to_unit(data.images), data.labels, task.classes)


def load_model(path: Path | str, device: str = "auto") -> LoadedModel:
    """A finished network of ours as a model from pixels to logits.

    Args:
        path: ``model.safetensors``, or its run folder.
        device: where to put it.

    Raises:
        CheckpointError: if the file is damaged, or its weights do not fit what it says it is.
    """
    where = choose_device(device)
    weights, description = ckpt.read_model(Path(path), where)
    try:
        section = RunSection.model_validate(description["run"])
        names, cost = tuple(description["class_names"]), TrainingCost(**description["cost"])
        spent = description.get("base_cost")
        base_cost = TrainingCost(**spent) if spent else None
        channels = dataset_spec(section.dataset).shape[0]
        model = load_deployed(section, channels, weights, where)
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{path} was written by another version: {first_problem(error)}") from None
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} are not those of {section.model} with the head of {section.method}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    return LoadedModel(model, section, names, cost, base_cost, description["weights_sha256"])


def task_of(section: RunSection, data_dir: Path | None = None) -> Task:
    """The data set and split of a run, checked against what the run was made with.

    Raises:
        CheckpointError: if the protocol or the split has changed since.
    """
    task = make_task(
        section.dataset,
        protocol=section.protocol,
        imbalance_ratio=section.asked_ratio,
        profile=section.profile,
        limit_train=section.limit_train,
        limit_test=section.limit_test,
        data_dir=data_dir,
    )
    if task.protocol.digest(section.dataset) != section.protocol_digest:
        raise CheckpointError(f"protocol {section.protocol} has changed since this network was trained under it.")
    for part, then, now in (
        ("trained on another folder's images", section.source_sha256, task.source.sha256),
        ("trained on another split", section.train_index_sha256, task.split.train_sha256),
        ("to be tested on other images", section.test_index_sha256, task.split.test_sha256),
    ):
        if then != now:
            raise CheckpointError(
                f"this network was {part} of {section.dataset} (SHA-256 {str(then)[:12]}, now {str(now)[:12]})."
            )
    return task


def suite_attacks(protocol: Protocol, names: list[str] | None) -> list[EvalAttack] | None:
    """Some of a protocol's attacks by name, or AutoAttack's own ones alone; None for the whole suite.

    Raises:
        UnknownNameError: for a name that is neither.
    """
    if not names:
        return None
    known = {a.name: a for a in (*protocol.evaluation.attacks, *SINGLE)}
    for name in names:
        if name not in known:
            raise UnknownNameError(f"attack of protocol {protocol.name}", name, known)
    return [known[n] for n in known if n in names]


class _Function(nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _attack(
    model: nn.Module,
    task: Task,
    device: torch.device,
    identity: str,
    state_path: Path | None,
    progress: Progress | None,
    attacks: list[EvalAttack] | None = None,
    surrogate: nn.Module | None = None,
    search: Search = "network",
) -> Verdict:
    index = task.split.test
    data = DeviceData.of(task.source.test_images[index], np.asarray(task.source.test_labels[index]), device)
    suite = task.protocol.evaluation
    with frozen(model):
        searched = None if search == "network" else StandIn(model, to_unit(data.images[:2]), search)
        if progress is not None and not isinstance(progress, Silent):  # measuring takes a second
            asked = suite.attacks if attacks is None else attacks
            progress.note(f"attacking costs about {evaluation_cost(searched or model, data, task.classes, asked)}")
    return evaluate_images(
        model,
        data,
        classes=task.classes,
        epsilon=task.epsilon,
        suite=suite,
        attacks=attacks,
        identity=identity,
        state_path=state_path,
        progress=progress,
        examined=EXAMINED if attacks is None else 0,
        surrogate=surrogate,
        searched=searched,
    )


__all__ = [
    "Evaluation",
    "LoadedModel",
    "analyse",
    "curve",
    "evaluate",
    "finish_run",
    "load_model",
    "run",
    "run_plan",
    "task_of",
    "train",
]
