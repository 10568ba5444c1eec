"""A thorough evaluation: the frozen suite, then attacks that are chosen by what it showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from ltrobust_bench.attacks.bpda import DECLARED, declared, parts_of, straight_through
from ltrobust_bench.attacks.pursuit import drawing_from
from ltrobust_bench.attacks.terms import Attack, Target
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.evaluation.adaptive import adaptive_suite, transfer_name
from ltrobust_bench.evaluation.evaluator import Verdict, evaluate_images, frozen
from ltrobust_bench.evaluation.examine import logits_of
from ltrobust_bench.evaluation.foreign import Attached
from ltrobust_bench.evaluation.identity import settled, tensors_of
from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.evaluation.state import kept_identity, state_name
from ltrobust_bench.evaluation.student import distilled, untrained
from ltrobust_bench.files import is_there, make_folder, write_bytes
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.verify import BASE, STUDENT, tolerated
from ltrobust_bench.records.weights import folders, read_index
from ltrobust_bench.scores.reliability import MASKING
from ltrobust_bench.terms import canonical_digest
from ltrobust_bench.training.checkpoint import metadata, weights_sha256
from ltrobust_bench.verbs.evaluations import attacked, second_model
from ltrobust_bench.verbs.loading import read_stored
from ltrobust_bench.verbs.subject import Model, Subject, subject_of, tested_images

MOST = 8
"""Other entries on which attacks are crafted."""
SUITE, ADAPTIVE, TAUGHT = "suite", "thorough", "student"
"""What is kept of an evaluation that is not finished: the suite's state, the adaptive suite's, the student."""


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
        folder: where the state is kept, so that an interrupted call goes on, with the same result as if it had not
            been interrupted; each kind of evaluation has a file of its own there.
        **terms: protocol, imbalance_ratio, profile, limit_test, data_dir.

    Returns:
        The suite's bits and, of each further attack, what it and all before it left standing.

    Raises:
        UsageError, CheckFailed: see :func:`~ltrobust_bench.verbs.evaluate`; also for a submodule that is not there,
            and for a result ``before`` of another model, other images or another protocol.

    Example: ``thorough("runs/at-digits-lt-ir20-small-s0-1a2b3c4d").broken_after``
    """
    told = progress or Silent()
    if {BASE, STUDENT} & set(others or {}):
        raise UsageError(f"no second model can be called {BASE} or {STUDENT}: give it another name.")
    if isinstance(before, Record):
        terms["limit_test"] = terms.get("limit_test") or before.run.limit_test
    subject = subject_of(model, dataset, device, **terms)
    through = _preprocessing(subject, preprocessing, told)
    subject = replace(subject, module=Attached(subject.module))
    module, task, where = subject.module, subject.task, subject.device
    named = {BASE: base, **(others or {})}
    seconds = {name: second_model(other, where) for name, other in named.items() if other is not None}
    kept = _places(folder, {"dataset": task.spec.name, **terms})
    if before is None:
        suite = attacked(subject, None, {}, state=kept[SUITE], code=code, progress=progress)
    else:
        suite = _known(before, subject, isinstance(model, (str, Path)))
    flags = {flag.name for flag in suite.flags}
    standing = np.flatnonzero(suite.frozen)
    if not len(standing):
        told.note("nothing stands: there is nothing left to attack")
        _forget(kept)
        return suite
    if not flags.isdisjoint(MASKING) and transfer_name(STUDENT) not in leave_out:
        seconds[STUDENT] = _student(subject, kept[TAUGHT], told)
    suited = adaptive_suite(flags, task.classes, seconds=list(seconds), preprocessing=through)
    chosen = [attack for attack in suited if attack.name not in leave_out]
    told.note(f"{len(standing)} images stand; against them: {', '.join(attack.name for attack in chosen)}")
    surrogates = {transfer_name(name): other for name, other in seconds.items()}
    index = task.split.test[standing]
    data = tested_images(task, index, where)
    if before is not None and "random" not in flags:
        _refuse_another(module, data, task.protocol.evaluation.batch_size)
    path, identity = kept[ADAPTIVE], ""
    if path is not None:
        parts = subject.parts(chosen, surrogates, code) | {"standing": canonical_digest(standing.tolist())}
        identity, changed = settled(parts, kept_identity(path))
        if changed:
            path.unlink()
            told.note(f"begun again: {' and '.join(changed)} changed since the evaluation was interrupted")
    verdict = evaluate_images(
        module,
        data,
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
    _forget(kept)
    return _together(suite, subject, {a.name: a for a in chosen}, surrogates, standing, verdict)


def beside(
    run: RunSection, runs_dir: Path, progress: Progress | None = None, *, base: Path | None = None
) -> tuple[Path | None, dict[str, str | Path]]:
    """Networks on which attacks on a run's network can be crafted: the one that it is built on, if its run folder is
    there, and the other entries of its board, shipped or in run folders, one seed each, by their names.

    What is not finished or damaged is left out, and the base's absence is said.

    Args:
        runs_dir: where run folders lie.
        base: the network that it is built on, if somebody named it.
    """
    told, named = progress or Silent(), base
    base = next(iter(runs_dir.glob(f"*-{run.base_key[:8]}")), None) if run.base_key and named is None else named
    if run.base_key and named is None and not _finished(base, told):
        where = f"no run folder in {runs_dir} ends in -{run.base_key[:8]}" if base is None else f"{base} has no network"
        told.note(f"nothing is crafted on the run that it is built on: {where}")
        base = None
    others: dict[str, str | Path] = {}
    start = f"{run.protocol}/{run.dataset}-ir{run.imbalance_ratio:g}/"
    for folder in folders():
        for name, one in read_index(folder).items():
            if one.record.startswith(start) and one.record != run.record_path():
                others.setdefault(one.record.removeprefix(start).partition("/")[0], name)
    middle = f"-{run.dataset}-ir{run.imbalance_ratio:g}-{run.model}-s"
    for path in sorted(runs_dir.glob(f"*{middle}*")):
        method = path.name.partition(middle)[0]
        if path != base and method not in (run.combination, *others) and len(others) < MOST and _finished(path, told):
            others[method] = path
    return base, dict(list(others.items())[:MOST])


def named_apart(paths: Sequence[Path], taken: Iterable[str]) -> dict[str, Path]:
    """Names for the files or run folders of second models, none of them twice or ``taken``: the same path is one model,
    and of equal names the later ones are numbered.

    Example: ``a/model.safetensors`` and ``b/model.safetensors`` are ``model.safetensors`` and ``model.safetensors-2``.
    """
    found: dict[str, Path] = {}
    used = {BASE, STUDENT, *taken}
    for path in dict.fromkeys(paths):
        name, number = path.name.lower(), 2
        while name in used:
            name, number = f"{path.name.lower()}-{number}", number + 1
        used.add(name)
        found[name] = path
    return found


def _finished(folder: Path | None, told: Progress) -> bool:
    """Whether a run folder holds a network; a damaged one is said."""
    if folder is None or not is_there(folder / "model.safetensors"):
        return False
    try:
        read_stored(folder)
    except LTBenchError as error:
        told.note(f"nothing is crafted on {folder.name}: {error}")
        return False
    return True


def _together(
    suite: Evaluation,
    subject: Subject,
    chosen: Mapping[str, Attack],
    surrogates: Mapping[str, nn.Module],
    standing: np.ndarray,
    verdict: Verdict,
) -> Evaluation:
    """The suite's result with that of the attacks on what it left standing."""
    bits = dict(suite.bits)
    for name in chosen:
        bits[name] = np.zeros(len(suite.labels), dtype=bool)
        bits[name][standing] = verdict.bits[name]
    about = subject.about(chosen, surrogates)
    known = {} if suite.about is None else dict(suite.about.attacks)
    return replace(
        suite,
        bits=bits,
        forwards=suite.forwards + verdict.forwards,
        backwards=suite.backwards + verdict.backwards,
        seconds=suite.seconds + verdict.seconds,
        about=replace(about, attacks=known | dict(about.attacks)),
        adaptive=tuple(chosen),
    )


def _places(folder: Path | None, terms: Mapping[str, Any]) -> dict[str, Path | None]:
    """Where each part of an evaluation under these terms is kept; where the data lie does not tell it from others."""
    if folder is None:
        return dict.fromkeys((SUITE, ADAPTIVE, TAUGHT))
    make_folder(folder)
    told = {name: value for name, value in terms.items() if name != "data_dir"}
    suite, adaptive, taught = (folder / state_name(kind, **told) for kind in (SUITE, ADAPTIVE, TAUGHT))
    return {SUITE: suite, ADAPTIVE: adaptive, TAUGHT: taught.with_suffix(".safetensors")}


def _forget(kept: Mapping[str, Path | None]) -> None:
    for path in kept.values():
        if path is not None:
            path.unlink(missing_ok=True)


def _known(before: Evaluation | Record, subject: Subject, ours: bool) -> Evaluation:
    """A suite's result that somebody has, if it is one of this model on these images.

    Args:
        ours: whether the model was given as the file of a network of ours, whose digest is that of its record.

    Raises:
        UsageError: saying what is another.
    """
    suite, task = before if isinstance(before, Evaluation) else _of_record(before), subject.task
    labels = np.asarray(task.source.test_labels[task.split.test])
    if not np.array_equal(suite.labels, labels) or any(b.shape != labels.shape for b in suite.bits.values()):
        raise UsageError(
            f"the suite's result is of {len(suite.labels)} test images, and not of these {len(labels)} in their order."
        )
    now = subject.about({})
    if isinstance(before, Record):
        digest, tested = before.run.protocol_digest, before.run.test_index_sha256
        weights = before.result.weights_sha256 if ours else now.weights_sha256  # a graph's tensors are named otherwise
    elif before.about is None:
        return suite
    else:
        digest, tested = before.about.protocol_digest, before.about.test_sha256
        weights = before.about.weights_sha256
    moving = any(flag.name == "state" for flag in suite.flags)  # its digest changes whenever it is looked at
    if weights != now.weights_sha256 and not moving:
        raise UsageError("the suite's result is of a model with other weights.")
    if tested != now.test_sha256 or suite.train_counts != task.split.train_counts and not isinstance(before, Record):
        raise UsageError(f"the suite's result is of another split of {now.dataset}.")
    if digest != now.protocol_digest:
        raise UsageError(f"the suite's result is not of protocol {now.protocol} as it is now.")
    return suite


def _refuse_another(module: nn.Module, data: DeviceData, batch_size: int) -> None:
    """See that a model classifies correctly what it withstood, they say, all of the suite on; whatever its digest is.

    Raises:
        UsageError: if it does not.
    """
    with frozen(module):
        right = logits_of(module, to_unit(data.images), batch_size).argmax(dim=1) == data.labels
    wrong = int((~right).sum())
    if wrong > tolerated(len(data)):
        raise UsageError(
            f"the suite's result is of another model: this one misclassifies {wrong} of the {len(data)} images that "
            "withstand it there."
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


def _preprocessing(subject: Subject, named: Sequence[str], told: Progress) -> Sequence[str]:
    """The submodules that preprocess: those named, else those that are declared; seen to be such before hours go by."""
    module, task = subject.module, subject.task
    for name in named:
        if not declared(module, [name]):
            parts = ", ".join(parts_of(module)) or "none"
            raise UsageError(f"the model has no submodule {name!r} that could preprocess; it has: {parts}.")
    names = named or ([DECLARED] if declared(module) else [])
    if not names:
        return []
    one = to_unit(torch.from_numpy(task.source.test_pixels(task.split.test[:1])).to(subject.device))
    try:
        with frozen(module), drawing_from(torch.Generator(), one), straight_through(module, names):
            logits_of(module, one, 1)
    except UsageError as error:
        if named:
            raise
        told.note(f"without BPDA: {error}")
        return []
    return names


def _student(subject: Subject, path: Path | None, told: Progress) -> nn.Module:
    """The student of a model, kept in a file until the evaluation is finished."""
    task, network = subject.task, subject.task.terms.model
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
