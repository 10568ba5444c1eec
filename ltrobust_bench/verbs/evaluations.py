"""Attacking and looking at any model: evaluate, curve, analyse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.registry import standard_attacks
from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.attacks.transfer import Transfer
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.stand_in import StandIn
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.data.split import first_of_each_class
from ltrobust_bench.errors import CheckpointError, UnknownNameError, UsageError
from ltrobust_bench.evaluation.analysis import Analysis, Classes, analysis_of
from ltrobust_bench.evaluation.curves import CURVES, Curve, CurveKind, trace
from ltrobust_bench.evaluation.evaluator import Verdict, evaluate_images, frozen
from ltrobust_bench.evaluation.examine import first_places
from ltrobust_bench.evaluation.foreign import check_takes_pixels
from ltrobust_bench.evaluation.observe import observe
from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.files import make_folder
from ltrobust_bench.plan.code import Code, package_sha256
from ltrobust_bench.plan.task import Task, make_task
from ltrobust_bench.progress import Named, Progress, Silent
from ltrobust_bench.protocol import Protocol
from ltrobust_bench.scores.metrics import Metrics, metrics_from_bits
from ltrobust_bench.terms import canonical_digest
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.estimate import evaluation_cost
from ltrobust_bench.verbs.loading import load_model, own_record, task_of

Model = nn.Module | Callable[[Tensor], Tensor] | str | Path
"""What can be evaluated: a module or function from [0, 1] pixels to logits, or the path of a network of ours."""
Search = Literal["network", "folded", "winograd", "bf16"]
"""What attacks climb: the network itself, or a faster copy of it (:mod:`ltrobust_bench.compute.stand_in`)."""
EXAMINED = 200
"""Test images on which a model's reliability is measured."""


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
        attacks: names of some of the suite's attacks, or of AutoAttack and its parts (``apgd-ce``, ``apgd-dlr``,
            ``apgd-t``, ``fab-t``, ``square``); default: the suite.
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
        chosen = [*(chosen or []), Transfer.standard()]
    identity = ""
    if state is not None and module.state_dict():
        make_folder(state.parent)
        identity = canonical_digest([_identity_of(module, task, chosen, surrogate), search])
    verdict = attack_model(
        module, task, where, identity, state if identity else None, progress, chosen, surrogate, search
    )
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

    def measure(attack: Attack, epsilon: float) -> Metrics:
        at, name = replace(task, epsilon=epsilon), f"{attack.name} at {epsilon:.3g}"
        bits = attack_model(module, at, where, "", None, Named(progress or Silent(), name), [attack]).bits[attack.name]
        return metrics_from_bits(bits, labels, counts)

    clean = metrics_from_bits(attack_model(module, task, where, "", None, progress, []).bits["clean"], labels, counts)
    return trace(kind, task.epsilon, len(labels), measure, clean, task.ball)


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
    record = own_record(path, loaded) if limit_test is None and path.exists() else None
    labels = np.asarray(task.source.test_labels)
    index = first_of_each_class(labels, task.split.test, limit_test)
    seen = observe(
        loaded.model,
        DeviceData.of(task.source.test_images[index], labels[index], choose_device(device)),
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        progress=progress or Silent(),
        ball=task.ball,
    )
    tested = np.bincount(labels[index], minlength=task.classes).tolist()
    worst_case = None if record is None else (record.bits("clean"), record.bits("union"))
    return analysis_of(loaded.run, Classes(loaded.class_names, loaded.run.train_counts, tested), seen, worst_case)


def suite_attacks(protocol: Protocol, names: list[str] | None) -> list[Attack] | None:
    """Some of a protocol's attacks by name, or of those that need no protocol; None for the whole suite.

    Raises:
        UnknownNameError: for a name that is neither.
    """
    if not names:
        return None
    stated = {attack.name: attack for attack in protocol.evaluation.attacks}
    known = stated | {name: attack for name, attack in standard_attacks().items() if name not in stated}
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
        if own.holdout is not None:
            if (imbalance_ratio, profile) != (None, None):
                raise UsageError(
                    f"{model} was trained on a part of its split and is tested on the rest: leave imbalance ratio and "
                    f"profile out."
                )
            terms["holdout"] = own.holdout
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
        check_takes_pixels(module, to_unit(data.images), data.labels, task.classes)


def _identity_of(module: nn.Module, task: Task, attacks: list[Attack] | None, surrogate: nn.Module | None) -> str:
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
            package_sha256("evaluation"),
        ]
    )


def attack_model(
    model: nn.Module,
    task: Task,
    device: torch.device,
    identity: str,
    state_path: Path | None,
    progress: Progress | None,
    attacks: list[Attack] | None = None,
    surrogate: nn.Module | None = None,
    search: Search = "network",
    code: Code | None = None,
) -> Verdict:
    index = task.split.test
    data = DeviceData.of(task.source.test_images[index], np.asarray(task.source.test_labels[index]), device)
    suite = task.protocol.evaluation
    with frozen(model):
        searched = None if search == "network" else StandIn(model, to_unit(data.images[:2]), search)
        if progress is not None and not isinstance(progress, Silent):  # measuring takes a second
            asked = suite.attacks if attacks is None else attacks
            cost = evaluation_cost(searched or model, data, task.classes, asked, suite.batch_size)
            progress.note(f"attacking costs about {cost}")
    return evaluate_images(
        model,
        data,
        classes=task.classes,
        epsilon=task.epsilon,
        suite=suite,
        ball=task.ball,
        attacks=attacks,
        identity=identity,
        state_path=state_path,
        progress=progress,
        examined=EXAMINED if attacks is None else 0,
        surrogate=surrogate,
        searched=searched,
        code=code,
    )
