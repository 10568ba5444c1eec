"""Attacking and looking at any model: evaluate, curve, analyse."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.registry import standard_attacks
from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.attacks.transfer import Transfer
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.compute.stand_in import INSTEAD, StandIn
from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.data.registry import Dataset
from ltrobust_bench.data.split import first_of_each_class, index_sha256
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.evaluation.analysis import Analysis, Classes, analysis_of
from ltrobust_bench.evaluation.curves import CURVES, Curve, CurveKind, trace
from ltrobust_bench.evaluation.evaluator import Verdict, evaluate_images, frozen
from ltrobust_bench.evaluation.identity import settled
from ltrobust_bench.evaluation.observe import observe
from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.evaluation.state import State, kept_identity
from ltrobust_bench.files import make_folder
from ltrobust_bench.notebook import usual_progress
from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.task import Task
from ltrobust_bench.progress import Named, Progress, Silent
from ltrobust_bench.protocol import Protocol
from ltrobust_bench.protocol.spec import Search
from ltrobust_bench.scores.metrics import Metrics, metrics_from_bits
from ltrobust_bench.scores.reliability import Flag
from ltrobust_bench.training.estimate import evaluation_cost
from ltrobust_bench.verbs.loading import load_model
from ltrobust_bench.verbs.subject import Model, Subject, examined, subject_of, tested_images


@undisturbed()
def evaluate(
    model: Model,
    dataset: Dataset | None = None,
    *,
    protocol: str | None = None,
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    train_counts: Sequence[int] | None = None,
    normalise: tuple[Sequence[float], Sequence[float]] | None = None,
    attacks: list[str] | None = None,
    transfer_from: nn.Module | str | Path | None = None,
    limit_test: int | None = None,
    data_dir: Path | str | None = None,
    device: str = "auto",
    state: Path | None = None,
    code: Sequence[str] = (),
    search: Search = "network",
    progress: Progress | None = None,
) -> Evaluation:
    """Attack any model with a protocol's suite.

    Args:
        model: a torch module (or function) from images in [0, 1], float32 [B, channels, height, width], to logits
            [B, C]; normalisation belongs inside it, or see ``normalise``. Or the path of a network of ours.
        dataset: its data set, a name or a :class:`DatasetSpec`; for a network of ours its own.
        protocol: whose suite and epsilon; default: the data set's.
        imbalance_ratio, profile: of the training set, which define head, medium and tail.
        train_counts: training images per label of the split that the model was trained on, [C], if it is none of ours.
        normalise: mean and standard deviation, of each channel or one for all, on the [0, 1] scale: the model is given
            (x - mean) / std.
        attacks: names of some of the suite's attacks, or of AutoAttack and its parts (``apgd-ce``, ``apgd-dlr``,
            ``apgd-t``, ``fab-t``, ``square``); default: the suite.
        transfer_from: a second model (as ``model``), on which PGD-20 is crafted as the attack ``transfer``.
        limit_test: first limit // C test images of each class.
        data_dir: folder or archive of the data set.
        device: where to compute; ``auto``: where the model is.
        state: file that keeps what is done, so that an interrupted call goes on; removed at the end. If the model's
            weights, its source files or its logits for fixed images are no longer what they were (or the test images,
            protocol or attacks are others), it begins again, and a line says why. See :func:`.identity.code_of`.
        code: names of Python modules whose source belongs to the model too, for instance the one that builds it.
        search: what the attacks climb: the ``network`` itself, or a faster copy of it, ``folded``, ``winograd``,
            ``tf32`` or ``bf16``. The network itself confirms every success, in float32.

    Returns:
        One bit per image and attack, and the metrics derived from them.

    Raises:
        UsageError: for unknown names or a network of another data set.
        CheckFailed: if the model does not return finite logits [B, C], or needs normalised input.
    """
    subject = subject_of(
        model,
        dataset,
        device,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        train_counts=train_counts,
        normalise=normalise,
        limit_test=limit_test,
        data_dir=data_dir,
    )
    chosen = suite_attacks(subject.task.protocol, attacks)
    surrogates: dict[str, nn.Module] = {}
    if transfer_from is not None:
        crafted = Transfer.standard()
        surrogates[crafted.name] = second_model(transfer_from, subject.device)
        chosen = [*(chosen or []), crafted]
    result = attacked(subject, chosen, surrogates, state=state, code=code, search=search, progress=progress)
    if state is not None:
        state.unlink(missing_ok=True)
    return result


def second_model(model: nn.Module | str | Path, device: torch.device) -> nn.Module:
    """A model on which attacks on another are crafted; of a network of ours, its path."""
    other = load_model(model, str(device)).model if isinstance(model, (str, Path)) else model
    return other.to(device).eval()


def attacked(
    subject: Subject,
    chosen: list[Attack] | None,
    surrogates: Mapping[str, nn.Module],
    *,
    state: Path | None,
    code: Sequence[str],
    search: Search = "network",
    progress: Progress | None,
) -> Evaluation:
    """What attacks find of a model, see :func:`evaluate`, which removes the state; here it stays, and asked again
    gives the same result.

    Args:
        chosen: None for the whole suite.
        surrogates: by the name of an attack that needs one, the second model on which it is crafted.
    """
    module, task, where = subject.module, subject.task, subject.device
    for flag in subject.look.flags if subject.look else ():
        _say(f"{flag.name}: {flag.seen} ({flag.meaning})", progress)
    identity = ""
    if state is not None:
        make_folder(state.parent)
        parts = subject.parts(chosen, surrogates, code) | {"search": search}
        identity, changed = settled(parts, kept_identity(state))
        if changed:
            state.unlink()
            _say(f"begun again: {' and '.join(changed)} changed since the evaluation was interrupted", progress)
    told = usual_progress(progress)
    verdict = attack_model(
        module,
        task,
        where,
        identity=identity,
        state_path=state,
        progress=told,
        attacks=chosen,
        surrogates=surrogates,
        search=search,
    )
    noticed = _noticed(subject, state)
    labels = task.source.test_labels[task.split.test]
    # An attack's name in the verdict can be another one than the protocol's.
    named = [name for name in verdict.bits if name != "clean"]
    used = task.protocol.evaluation.attacks if chosen is None else chosen
    return Evaluation(
        verdict.bits,
        labels,
        task.split.train_counts,
        verdict.broken_by,
        verdict.forwards,
        verdict.backwards,
        verdict.seconds,
        verdict.reliability,
        subject.about(dict(zip(named, used, strict=True)), surrogates),
        noticed=noticed,
    )


def _noticed(subject: Subject, state: Path | None) -> tuple[Flag, ...]:
    """What looks at a model before and after it was attacked found. It is kept with the state: a session that finds all
    done attacks nothing that could change the model."""
    if subject.look is None:
        return ()
    kept = None if state is None else State.kept(state)
    if kept is not None and kept.noticed:
        return tuple(Flag(*one) for one in kept.noticed)
    with frozen(subject.module):
        found = subject.look.again()
    if kept is not None:
        kept.noticed = [[flag.name, flag.seen, flag.meaning] for flag in found]
        kept.save(state)
    return found


@undisturbed()
def curve(
    model: Model,
    kind: CurveKind,
    dataset: Dataset | None = None,
    *,
    protocol: str | None = None,
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    train_counts: Sequence[int] | None = None,
    normalise: tuple[Sequence[float], Sequence[float]] | None = None,
    limit_test: int | None = None,
    data_dir: Path | str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Curve:
    """Robust accuracy along a growing radius (``eps``) or number of PGD steps (``steps``).

    Args:
        others: see :func:`evaluate`.

    Raises:
        UnknownNameError: for another kind.
        UsageError, CheckFailed: see :func:`evaluate`.
    """
    if kind not in CURVES:
        raise UnknownNameError("curve", kind, CURVES)
    subject = subject_of(
        model,
        dataset,
        device,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        train_counts=train_counts,
        normalise=normalise,
        limit_test=limit_test,
        data_dir=data_dir,
    )
    module, task, where = subject.module, subject.task, subject.device
    labels, counts = task.source.test_labels[task.split.test], task.split.train_counts

    def measure(attack: Attack, epsilon: float) -> Metrics:
        at, told = replace(task, epsilon=epsilon), Named(progress or Silent(), f"{attack.name} at {epsilon:.3g}")
        verdict = attack_model(module, at, where, progress=told, attacks=[attack])
        return metrics_from_bits(verdict.bits[attack.name], labels, counts)

    verdict = attack_model(module, task, where, progress=progress, attacks=[])
    clean = metrics_from_bits(verdict.bits["clean"], labels, counts)
    return replace(trace(kind, task.epsilon, len(labels), measure, clean, task.ball), about=subject.about({}))


@undisturbed()
def analyse(
    network: Path | str,
    *,
    limit_test: int | None = None,
    data_dir: Path | str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Analysis:
    """What a finished network of ours does class by class: natural and boundary error, where attacked images end,
    norms of features and class vectors, margins.

    Errors are those of the worst case over the suite where there is a record of the network, else of the
    protocol's first PGD attack, as everything else under attack.

    Args:
        network: its run folder, ``model.safetensors``, or the name of a network that comes with the package.
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
    task = loaded.task(data_dir)
    record = loaded.record() if limit_test is None else None
    labels = np.asarray(task.source.test_labels)
    index = first_of_each_class(labels, task.split.test, limit_test)
    seen = observe(
        loaded.model,
        tested_images(task, index, choose_device(device)),
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        progress=progress or Silent(),
        ball=task.ball,
    )
    tested = np.bincount(labels[index], minlength=task.classes).tolist()
    worst_case = None if record is None else (record.bits("clean"), record.bits("union"))
    subject = Subject(loaded.model, task, choose_device(device), loaded.weights_sha256)
    about = subject.about({attack.name: attack for attack in task.protocol.evaluation.attacks})
    if limit_test is not None:
        about = replace(about, test_sha256=index_sha256(index))
    classes = Classes(loaded.class_names, loaded.run.train_counts, tested, about)
    return analysis_of(loaded.run, classes, seen, worst_case)


def suite_attacks(protocol: Protocol, names: list[str] | None) -> list[Attack] | None:
    """Some of a protocol's attacks by name, or of those that need no protocol; None for the whole suite.

    Raises:
        UnknownNameError: for a name that is neither.
    """
    if not names:
        return None
    stated = {attack.name: attack for attack in protocol.evaluation.attacks}
    known = stated | {name: attack for name, attack in standard_attacks().items() if name not in stated}
    names = [name.lower() for name in names]
    for name in names:
        if name not in known:
            raise UnknownNameError(f"attack of protocol {protocol.name}", name, known)
    return [known[n] for n in known if n in names]


def _say(line: str, progress: Progress | None) -> None:
    """To whoever follows, or as a warning if nobody was named."""
    if progress is None:
        warnings.warn(line, stacklevel=4)
    else:
        progress.note(line)


def attack_model(
    model: nn.Module,
    task: Task,
    device: torch.device,
    *,
    identity: str = "",
    state_path: Path | None = None,
    progress: Progress | None = None,
    attacks: list[Attack] | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
    search: Search = "network",
    code: Code | None = None,
) -> Verdict:
    """Attack a model with a task's whole suite, and measure what the verdict rests on; or only with some ``attacks``.

    Arguments as those of :func:`~ltrobust_bench.evaluation.evaluator.evaluate_images`; ``search`` says what attacks
    climb, as in a protocol.
    """
    data = tested_images(task, task.split.test, device)
    suite = task.protocol.evaluation
    with frozen(model):
        searched = searched_on(model, to_unit(data.images[:2]), search)
        if progress is not None and progress.shown:  # measuring takes a second
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
        examined=examined(task) if attacks is None else 0,
        surrogates=surrogates,
        searched=searched,
        products="tf32" if search == "tf32" else "ieee",
        code=code,
    )


def searched_on(model: nn.Module, x: Tensor, search: Search) -> StandIn | None:
    """The copy that attacks search on; None: the model itself.

    Args:
        model: pixels to logits, in eval mode.
        x: some images.

    Raises:
        UsageError: if there is no such copy.
    """
    if search == "network":
        return None
    return StandIn(model, x, "folded" if search == "tf32" else search)


def possible_search(model: nn.Module, x: Tensor, search: Search, progress: Progress) -> Search:
    """What attacks can search on: ``search``, or the network itself where there is no such copy of the model."""
    try:
        searched_on(model, x, search)
    except UsageError as error:
        progress.note(f"attacks search on the network itself: {str(error).removesuffix(f'; {INSTEAD}')}")
        return "network"
    return search
