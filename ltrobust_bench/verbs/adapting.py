"""A thorough evaluation: the frozen suite, then attacks that are chosen by what it showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ltrobust_bench.attacks.bpda import DECLARED, declared
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.adaptive import adaptive_suite, transfer_name
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.evaluation.identity import settled, tensors_of
from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.evaluation.state import kept_identity
from ltrobust_bench.evaluation.student import distilled, untrained
from ltrobust_bench.files import is_there, make_folder, write_bytes
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.verify import STUDENT
from ltrobust_bench.records.weights import folders, read_index
from ltrobust_bench.scores.reliability import MASKING
from ltrobust_bench.terms import canonical_digest
from ltrobust_bench.training.checkpoint import metadata, weights_sha256
from ltrobust_bench.verbs.evaluations import evaluate
from ltrobust_bench.verbs.loading import load_model
from ltrobust_bench.verbs.subject import Model, Subject, subject_of

BASE = "base"
"""What the second model is called that is honest and inside of the model."""
MOST = 8
"""Other entries on which attacks are crafted."""
STATE, SUITE_STATE, TAUGHT = "thorough.npz", "evaluation.npz", "student.safetensors"


@undisturbed()
def thorough(
    model: Model,
    dataset: str | None = None,
    *,
    base: nn.Module | str | Path | None = None,
    others: Mapping[str, nn.Module | str | Path] | None = None,
    preprocessing: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    before: Evaluation | Record | None = None,
    folder: Path | None = None,
    device: str = "auto",
    code: Sequence[str] = (),
    progress: Progress | None = None,
    **terms: Any,
) -> Evaluation:
    """Attack any model with its protocol's suite and then, as far as it stands, with the adaptive suite.

    The frozen suite's bits are what :func:`~ltrobust_bench.verbs.evaluate` finds. Which attacks follow depends on the
    model's flags and on what is given here, see :func:`ltrobust_bench.evaluation.adaptive.adaptive_suite`; a masking
    flag also brings in a student that learns the model's answers to training images.

    Args:
        model, dataset, device, code, progress: see :func:`~ltrobust_bench.verbs.evaluate`.
        base: the honest model that it is made of, if there is one.
        others: further models of the same data set by their names, on which attacks are crafted, too.
        preprocessing: names of its submodules that preprocess images; default: those called ``preprocessing``.
        leave_out: names of attacks of the adaptive suite that are too dear.
        before: the suite's result, if it is known; a record's, for the network of the record.
        folder: where the state is kept, so that an interrupted call goes on.
        **terms: protocol, imbalance_ratio, profile, limit_test, data_dir.

    Returns:
        The suite's bits and, of each further attack, what it and all before it left standing.

    Raises:
        UsageError, CheckFailed: see :func:`~ltrobust_bench.verbs.evaluate`; also for a submodule that is not there.

    Example: ``thorough("runs/at-digits-lt-ir20-small-s0-1a2b3c4d").broken_after``
    """
    told = progress or Silent()
    subject = subject_of(model, dataset, device, **terms)
    module, task, where = subject.module, subject.task, subject.device
    through = _preprocessing(module, preprocessing)
    seconds = {
        name: _ready(other, where) for name, other in {BASE: base, **(others or {})}.items() if other is not None
    }
    if folder is not None:
        make_folder(folder)
    if before is None:
        state = None if folder is None else folder / SUITE_STATE
        before = evaluate(model, dataset, device=device, state=state, code=code, progress=progress, **terms)
    suite = before if isinstance(before, Evaluation) else _of_record(before)
    flags = {flag.name for flag in suite.flags}
    standing = np.flatnonzero(suite.frozen)
    if not len(standing):
        told.note("nothing stands: there is nothing left to attack")
        return suite
    if not flags.isdisjoint(MASKING) and transfer_name(STUDENT) not in leave_out:
        seconds[STUDENT] = _student(subject, folder, told)
    suited = adaptive_suite(flags, task.classes, seconds=list(seconds), preprocessing=through)
    chosen = [attack for attack in suited if attack.name not in leave_out]
    told.note(f"{len(standing)} images stand; against them: {', '.join(attack.name for attack in chosen)}")
    surrogates = {transfer_name(name): other for name, other in seconds.items()}
    index = task.split.test[standing]
    path, identity = None if folder is None else folder / STATE, ""
    if path is not None:
        parts = subject.parts(chosen, surrogates, code) | {"standing": canonical_digest(standing.tolist())}
        identity, changed = settled(parts, kept_identity(path))
        if changed:
            path.unlink()
            told.note(f"begun again: {' and '.join(changed)} changed since the evaluation was interrupted")
    verdict = evaluate_images(
        module,
        DeviceData.of(task.source.test_pixels(index), np.asarray(task.source.test_labels[index]), where),
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        ball=task.ball,
        attacks=chosen,
        identity=identity,
        state_path=path,
        progress=progress,
        surrogates=surrogates,
        cumulative=True,
    )
    for left in () if folder is None else (folder / STATE, folder / TAUGHT):
        left.unlink(missing_ok=True)
    return _together(suite, subject, {a.name: a for a in chosen}, surrogates, standing, verdict.bits, verdict)


def beside(run: RunSection, runs_dir: Path) -> tuple[Path | None, dict[str, str | Path]]:
    """Networks on which attacks on a run's network can be crafted: the one that it is built on, if its run folder is
    there, and the other entries of its board, shipped or in run folders, one seed each, by their names.

    Args:
        runs_dir: where run folders lie.
    """
    base = next(iter(runs_dir.glob(f"*-{run.base_key[:8]}")), None) if run.base_key else None
    others: dict[str, str | Path] = {}
    start = f"{run.protocol}/{run.dataset}-ir{run.imbalance_ratio:g}/"
    for folder in folders():
        for name, one in read_index(folder).items():
            if one.record.startswith(start) and one.record != run.record_path():
                others.setdefault(one.record.removeprefix(start).partition("/")[0], name)
    middle = f"-{run.dataset}-ir{run.imbalance_ratio:g}-{run.model}-s"
    for path in sorted(runs_dir.glob(f"*{middle}*")):
        method = path.name.partition(middle)[0]
        mine = "+".join([run.method, *run.plugins])
        if path != base and method != mine and is_there(path / "model.safetensors"):
            others.setdefault(method, path)
    return base, dict(list(others.items())[:MOST])


def _together(
    suite: Evaluation,
    subject: Subject,
    chosen: Mapping[str, Any],
    surrogates: Mapping[str, nn.Module],
    standing: np.ndarray,
    found: Mapping[str, np.ndarray],
    cost: Any,
) -> Evaluation:
    """The suite's result with that of the attacks on what it left standing."""
    bits = dict(suite.bits)
    for name in chosen:
        bits[name] = np.zeros(len(suite.labels), dtype=bool)
        bits[name][standing] = found[name]
    about = subject.about(chosen, surrogates)
    known = {} if suite.about is None else dict(suite.about.attacks)
    return replace(
        suite,
        bits=bits,
        forwards=suite.forwards + cost.forwards,
        backwards=suite.backwards + cost.backwards,
        seconds=suite.seconds + cost.seconds,
        about=replace(about, attacks=known | dict(about.attacks)),
        adaptive=tuple(chosen),
    )


def _of_record(record: Record) -> Evaluation:
    """What a record's suite found."""
    return Evaluation(
        {name: record.bits(name) for name in ("clean", *record.attacks)},
        record.labels(),
        record.run.train_counts,
        record.broken_by(),
        record.cost.evaluation.forwards,
        record.cost.evaluation.backwards,
        record.cost.evaluation.seconds,
        record.reliability,
    )


def _preprocessing(module: nn.Module, named: Sequence[str]) -> Sequence[str]:
    """The submodules that preprocess: those named, else those that are declared."""
    for name in named:
        if not declared(module, [name]):
            parts = ", ".join(name for name, _ in module.named_children()) or "none"
            raise UsageError(f"the model has no submodule {name!r} that could preprocess; it has: {parts}.")
    return named or ([DECLARED] if declared(module) else [])


def _ready(other: nn.Module | str | Path, where: torch.device) -> nn.Module:
    model = load_model(other, str(where)).model if isinstance(other, (str, Path)) else other
    return model.to(where).eval()


def _student(subject: Subject, folder: Path | None, told: Progress) -> nn.Module:
    """The student of a model, kept in a folder until the evaluation is finished."""
    task, network = subject.task, subject.task.terms.model
    path = None if folder is None else folder / TAUGHT
    of = canonical_digest([weights_sha256(tensors_of(subject.module)), task.split.train_sha256, task.epsilon, network])
    empty = untrained(task.spec.shape, task.classes, network, 0).to(subject.device).eval().requires_grad_(False)
    if path is not None and path.exists():
        try:
            content = read_bytes(path, None)
            weights = load(content)
            if metadata(content) == {"of": of}:
                empty.load_state_dict(weights)
                return empty
        except (SafetensorError, OSError, RuntimeError, ValueError):
            told.note(f"{path} is damaged: the student learns again")
    told.note("a student learns the model's answers, for attacks to be crafted on")
    on = Target(Splitting(subject.module), task.classes, task.epsilon, task.ball, task.protocol.evaluation.seed, "cpu")
    images = torch.from_numpy(task.source.train_pixels(task.split.train)).to(subject.device)
    with frozen(subject.module):
        student = distilled(on, images, network)
    if path is not None:
        write_bytes(path, save(student.state_dict(), {"of": of}))
    return student
