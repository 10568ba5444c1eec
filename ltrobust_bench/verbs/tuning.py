"""Trying settings on images that are held out of the training set."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.errors import LTBenchError, UnknownNameError, UsageError
from ltrobust_bench.files import is_there, write_text
from ltrobust_bench.interrupt import Stopped
from ltrobust_bench.notebook import usual_progress
from ltrobust_bench.plan.code import code_now
from ltrobust_bench.plan.make import Plan, literal
from ltrobust_bench.plan.request import Request, takes_request
from ltrobust_bench.plan.run import RunSection, Settings
from ltrobust_bench.progress import Progress
from ltrobust_bench.scores.intervals import images_behind
from ltrobust_bench.sweeps.notes import why
from ltrobust_bench.sweeps.scheduler import Rules
from ltrobust_bench.terms import canonical_digest, canonical_json
from ltrobust_bench.training.checkpoint import remove_run
from ltrobust_bench.training.folder import locked
from ltrobust_bench.training.result import MODEL
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs.evaluations import evaluate, suite_attacks
from ltrobust_bench.verbs.sweeping import Sweep, executor_with, place_of
from ltrobust_bench.verbs.trials import OF_TRIALS, Trial, Trials, agree, best, digest_of, read_trials

METRIC = "pgd-20:tail"
PARTS = ("overall", "balanced", "head", "medium", "tail", "worst_class", "worst_tenth")
MOST = 8
"""Settings that may be tried where nobody says otherwise: options are the paper's, or come from so few trials."""


@takes_request
@undisturbed()
def tune(
    request: Request,
    *,
    grid: Mapping[str, Sequence[Any]],
    metric: str = METRIC,
    seeds: Sequence[int] | None = None,
    trials: int | None = None,
    at_most: int | None = None,
    output: Path | str = Path("trials.json"),
    fresh: bool = False,
    executor: str | None = None,
    workers: Mapping[str, Any] | None = None,
    data_dir: Path | str | None = None,
    runs_dir: Path | str = Path("runs"),
    device: str = "auto",
    progress: Progress | None = None,
) -> Trials:
    """Try settings: train each without a tenth of the training images, and attack it on these. No test image is used.

    Args:
        request: what is asked for besides, or its method, data set and other fields, see :class:`Request`.
        grid: values to try, by the name of the setting; all combinations.
        metric: ``attack:part``: ``clean``, an attack of the suite or ``union``, and ``balanced``, ``head``, ``medium``,
            ``tail``, ``overall``, ``worst_class`` or ``worst_tenth``.
        seeds: of training, for each of the settings; default: the request's.
        trials: at most so many combinations, drawn at random, the same ones each time; None: all.
        at_most: settings that may be tried, those that the file holds included; it is kept in the file. Default: the
            file's own, or :data:`MOST`.
        output: file of the trials. Trials that it holds are not made again, and are kept.
        fresh: make the trials of this grid again, whatever the file and the run folders hold.
        executor, workers: who trains, and the executor's options (``{"workers": 4}``), as for
            :func:`~ltrobust_bench.verbs.sweep`; default: this process, one after the other.
        data_dir, runs_dir, device, progress: see :func:`~ltrobust_bench.verbs.train`.

    Raises:
        UsageError: for an impossible grid or metric, more settings than may be tried, or a file of other trials, or of
            trials by other code.
        LTBenchError: if a training failed elsewhere; what is finished is kept.

    Example: ``tune("at-bsl", "digits-lt", grid={"tau": [0.5, 1.0]}).chosen``
    """
    attack, part = _metric(metric)
    metric, output = f"{attack}:{part}", Path(output)
    base = request.replace(holdout="val")
    asked = [
        base.replace(settings=dict(base.settings) | point, seed=seed)
        for point in _points(grid, trials)
        for seed in (seeds or [request.seed])
    ]
    # All are planned before the first is run, so that mistakes show at once.
    plans = {plan.run.key(): (one, plan) for one, plan in ((one, one.to_plan(data_dir)) for one in asked)}
    _, first = next(iter(plans.values()))
    images = _images(first, attack, part)
    code = _code(first)
    done = [trial for trial in _trials_in(output, first.run, metric) if not (fresh and trial.key in plans)]
    if any(trial.code != code for trial in done):
        raise UsageError(
            f"{output} holds trials by other code than this: try all their settings again with --fresh, or name "
            f"another file with --output."
        )
    at_most = _limit(output, at_most, [*(t.settings for t in done), *(_typed(*pair) for pair in plans.values())])
    progress = usual_progress(progress)
    left = {key: pair for key, pair in plans.items() if all(trial.key != key for trial in done)}
    failed = ""
    if left and (executor or workers):
        place = {"runs_dir": runs_dir, "data_dir": data_dir, "device": device}
        failed = _train_elsewhere(left.values(), fresh, executor or "local", dict(workers or {}), progress, **place)
        fresh = False  # what has to be trained again was removed, and trained
    for key, (one, plan) in plans.items():
        label = ", ".join([*(f"{name}={value}" for name, value in dict(one.settings).items()), f"seed {one.seed}"])
        folder = Path(runs_dir) / plan.run.folder_name()
        if key not in left:
            progress.note(f"{label}: tried already")
        elif not failed or is_there(folder / MODEL):
            progress.note(label)
            trained = train_plan(plan, folder, choose_device(device), progress, fresh=fresh)
            value = _value(trained.model_path, plan, attack, part, data_dir=data_dir, device=device, progress=progress)
            done.append(Trial(settings=_typed(one, plan), seed=one.seed, key=key, value=value, code=code))
            write_text(output, _trials(plan.run, metric, images, at_most, done).model_dump_json(indent=1) + "\n")
    if failed:
        raise LTBenchError(failed)
    return read_trials(output)


def _train_elsewhere(
    asked: Iterable[tuple[Request, Plan]],
    fresh: bool,
    executor: str,
    options: dict[str, Any],
    progress: Progress,
    **where: Any,
) -> str:
    """Have the networks of trials trained by an executor; why some are not, empty if all are.

    Raises:
        Stopped: if this process was asked to stop; its workers have kept what they had.
    """
    kind, chosen = executor_with(executor, options, where["device"])
    place = place_of(chosen, where["runs_dir"], None, where["data_dir"], where["device"])
    pairs = list(asked)
    for _, plan in pairs if fresh else ():
        folder = place.runs_dir / plan.run.folder_name()
        with locked(folder, None):
            remove_run(folder)
    sweep = Sweep.of([one for one, _ in pairs], place, evaluated=False)
    report = sweep.run(kind(chosen), Rules(keep_going=True), progress)
    if report.interrupted:
        raise Stopped(f"Stopped by {report.interrupted}. The same command goes on from here.")
    for outcome in report.failed.values():
        return f"{len(report.failed)} trials failed; {outcome.job.id}: {why(outcome) or outcome.end}; {outcome.job.log}"
    return f"{len(report.left)} trials are left; the same command goes on." if report.left else ""


def _limit(output: Path, asked: int | None, settings: Sequence[Settings]) -> int:
    """How many settings may be tried for a file.

    Raises:
        UsageError: if more are asked for, with those that it holds.
    """
    stated = read_trials(output).at_most if output.exists() else None
    most = asked or stated or MOST
    count = len({canonical_json(each) for each in settings})
    if count > most:
        raise UsageError(
            f"{count} settings would be tried for {output}, and at most {most} may be: a smaller grid, --trials N of "
            f"it, or --at-most {count}, which the file keeps."
        )
    return max(most, stated or 0)


def _metric(metric: str) -> tuple[str, str]:
    attack, _, part = metric.partition(":")
    part = part or "balanced"
    if part not in PARTS:
        raise UnknownNameError("part of a metric", part, PARTS)
    return attack, part


def _points(grid: Mapping[str, Sequence[Any]], trials: int | None) -> list[dict[str, Any]]:
    """The combinations of a grid, all or some drawn at random; more draws begin with the same ones."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if not grid or not points:
        raise UsageError("tune needs values to try: --grid NAME=VALUE,VALUE; `ltbench show METHOD` lists the settings.")
    if trials is None:
        return points
    if trials < 1:
        raise UsageError(f"{trials} trials try nothing; use 1 or more.")
    random.Random(0).shuffle(points)
    return points[:trials]


def _images(plan: Plan, attack: str, part: str) -> float | None:
    """Held-out images behind the metric; None if it is no proportion.

    Raises:
        UsageError: if the suite has no such attack, or the data set no such group.
    """
    if attack not in ("clean", "union"):
        suite_attacks(plan.task.protocol, [attack])
    known = images_behind(plan.run.train_counts, plan.run.test_counts)
    if part in ("head", "medium", "tail") and part not in known:
        raise UsageError(f"{plan.run.dataset} has {plan.task.classes} classes, too few for a {part}.")
    return known.get(part)


def _value(path: Path, plan: Plan, attack: str, part: str, **where: Any) -> float:
    """The metric of a finished network on its held-out images."""
    suite = [each.name for each in plan.task.protocol.evaluation.attacks]
    attacks = {"union": suite, "clean": suite[:1]}.get(attack, [attack])
    result = evaluate(path, attacks=attacks, state=path.parent / "tuning.npz", **where)
    # AutoAttack has another name where there are few classes.
    name = attack if attack in ("clean", "union") else result.attacks[0]
    return float(getattr(result.metrics(name), part))


def _code(plan: Plan) -> str:
    """Digest (hex) of the code that trains a plan's run, its base included."""
    now = code_now(plan)
    base = [now["base"].method_sha256] if "base" in now else []
    return canonical_digest([now["training"].method_sha256, now["training"].package_sha256, *base])


def _typed(request: Request, plan: Plan) -> Settings:
    """The settings of a request as the run holds them."""
    held = plan.run.options | plan.run.overrides
    return {name: held.get(name, literal(value)) for name, value in dict(request.settings).items()}


def _trials_in(path: Path, run: RunSection, metric: str) -> list[Trial]:
    """The trials that a file holds already; none if there is no file."""
    if not path.exists():
        return []
    found = read_trials(path)
    wanted = {name: getattr(run, name) for name in OF_TRIALS} | {"metric": metric}
    agree(path, found, wanted, "what is asked for")
    return list(found.trials)


def _trials(run: RunSection, metric: str, images: float | None, at_most: int, done: list[Trial]) -> Trials:
    terms = {name: getattr(run, name) for name in OF_TRIALS} | {"at_most": at_most}
    fields = {**terms, "metric": metric, "images": images, "trials": done, "chosen": best(done)}
    plain = Trials.model_construct(**fields, digest="").model_dump(mode="json")
    return Trials(**fields, digest=digest_of(plain))
