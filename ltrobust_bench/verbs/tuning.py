"""Trying settings on images that are held out of the training set: tune, and the file that it writes."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.files import write_text
from ltrobust_bench.plan.code import code_of
from ltrobust_bench.plan.make import Plan, literal
from ltrobust_bench.plan.request import Request, takes_request
from ltrobust_bench.plan.run import Name, Profile, RunSection, Settings, Sha256, Text, Track
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.scores.intervals import Spread, images_behind, over_seeds
from ltrobust_bench.terms import Strict, canonical_digest, canonical_json, first_problem
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs.evaluations import evaluate, suite_attacks

METRIC = "pgd-20:tail"
PARTS = ("overall", "balanced", "head", "medium", "tail", "worst_class", "worst_tenth")
OF_RUN = ("method", "card_version", "plugins", "dataset", "source_sha256", "protocol", "protocol_digest", "track")
"""What a run that takes settings from trials must share with them."""
OF_TRIALS = (*OF_RUN, "model", "profile", "train_index_sha256", "test_index_sha256", "epochs")
"""What trials in one file share, so that they may be compared."""


class Trial(Strict):
    """One run with some settings, tested on held-out images."""

    settings: Settings = Field(description="all that were given by hand, by name")
    seed: int = Field(ge=0)
    key: Sha256 = Field(description="run key; its run folder is named after it")
    value: float = Field(ge=0, le=1, description="the metric, a fraction")
    code: Sha256 = Field(description="of the method's and the package's code that trained it")


class Trials(Strict):
    """Trials of one method on one training set, as their file holds them.

    All that were ever made for the file stay in it, so that it knows how many settings were tried.
    """

    version: Literal[1] = 1
    method: Name
    card_version: int = Field(ge=1)
    plugins: list[Name]
    dataset: Name
    source_sha256: Sha256 | None
    protocol: Name
    protocol_digest: Sha256
    track: Track
    model: Name
    profile: Profile
    train_index_sha256: Sha256
    test_index_sha256: Sha256 = Field(description="of the held-out images")
    epochs: int | None
    metric: Text = Field(description="attack:part")
    images: float | None = Field(description="held-out images behind the metric; null: it is no proportion")
    trials: list[Trial] = Field(min_length=1)
    chosen: Settings = Field(description="the settings with the highest mean over their seeds, of equals the first")
    digest: Sha256 = Field(description="SHA-256 of all the rest")

    @model_validator(mode="after")
    def _unedited(self) -> Trials:
        if self.chosen != _best(self.trials) or self.digest != _digest(self.model_dump(mode="json")):
            raise ValueError("digest: is not that of the trials; was the file edited?")
        return self

    @property
    def count(self) -> int:
        """How many settings were tried."""
        return len(_by_settings(self.trials))

    def table(self) -> list[tuple[Settings, list[int], Spread]]:
        """Each of the settings with its seeds, and the metric over them; its interval is t over seeds, of one seed
        Wilson's, and NaN where the metric is no proportion."""
        images = float("nan") if self.images is None else self.images
        return [
            (own[0].settings, [trial.seed for trial in own], over_seeds([trial.value for trial in own], images))
            for own in _by_settings(self.trials)
        ]


@takes_request
def tune(
    request: Request,
    *,
    grid: Mapping[str, Sequence[Any]],
    metric: str = METRIC,
    seeds: Sequence[int] | None = None,
    trials: int | None = None,
    output: Path | str = Path("trials.json"),
    fresh: bool = False,
    data_dir: Path | None = None,
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
        output: file of the trials. Trials that it holds are not made again, and are kept.
        fresh: make the trials of this grid again, whatever the file and the run folders hold.
        data_dir, runs_dir, device, progress: see :func:`~ltrobust_bench.verbs.train`.

    Raises:
        UsageError: for an impossible grid or metric, or a file of other trials, or of trials by other code.

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
    code = _code(first.run)
    done = [trial for trial in _trials_in(output, first.run, metric) if not (fresh and trial.key in plans)]
    if any(trial.code != code for trial in done):
        raise UsageError(
            f"{output} holds trials by other code than this: try all their settings again with --fresh, or name "
            f"another file with --output."
        )
    told = progress or Silent()
    for key, (one, plan) in plans.items():
        label = ", ".join([*(f"{name}={value}" for name, value in dict(one.settings).items()), f"seed {one.seed}"])
        if any(trial.key == key for trial in done):
            told.note(f"{label}: tried already")
            continue
        told.note(label)
        folder = Path(runs_dir) / plan.run.folder_name()
        trained = train_plan(plan, folder, choose_device(device), progress, fresh=fresh)
        value = _value(trained.model_path, plan, attack, part, data_dir=data_dir, device=device, progress=progress)
        done.append(Trial(settings=_typed(one, plan.run), seed=one.seed, key=key, value=value, code=code))
        write_text(output, _trials(plan.run, metric, images, done).model_dump_json(indent=1) + "\n")
    return read_trials(output)


def read_trials(path: Path | str) -> Trials:
    """What :func:`tune` wrote.

    Raises:
        UsageError: if there is no such file, or it is damaged or was edited.
    """
    try:
        return Trials.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        raise UsageError(f"no trials at {path}; `ltbench tune` writes them.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} holds no trials: {first_problem(error)}.") from None


def tuned_plan(request: Request, tuned: Path | str | None, data_dir: Path | None = None) -> tuple[Plan, int]:
    """The plan of a request with the settings chosen in a file of trials, and how many were tried; without a file the
    request's own plan, and 0.

    Raises:
        UsageError: if the trials are of another method, data set, protocol or card, or settings are given twice.
    """
    if tuned is None:
        return request.to_plan(data_dir), 0
    trials, given = read_trials(tuned), dict(request.settings)
    _agree(tuned, trials, {"method": request.method}, "this run")  # before another method's settings are looked up
    for name in given.keys() & trials.chosen.keys():
        raise UsageError(f"{tuned} chooses {name}={trials.chosen[name]}: leave {name} out, or the file.")
    plan = request.replace(settings=given | trials.chosen).to_plan(data_dir)
    _agree(tuned, trials, {name: getattr(plan.run, name) for name in OF_RUN}, "this run")
    return plan, trials.count


def _agree(path: Path | str, trials: Trials, wanted: Mapping[str, Any], whose: str) -> None:
    for name, value in wanted.items():
        if (theirs := getattr(trials, name)) != value:
            raise UsageError(f"{path} holds trials of another {name.replace('_', ' ')}: {theirs}, {whose} has {value}.")


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


def _code(run: RunSection) -> str:
    code = code_of(run, "training")
    return canonical_digest([code.method_sha256, code.package_sha256])


def _typed(request: Request, run: RunSection) -> Settings:
    """The settings of a request as the run holds them."""
    held = run.options | run.overrides
    return {name: held.get(name, literal(value)) for name, value in dict(request.settings).items()}


def _trials_in(path: Path, run: RunSection, metric: str) -> list[Trial]:
    """The trials that a file holds already; none if there is no file."""
    if not path.exists():
        return []
    found = read_trials(path)
    wanted = {name: getattr(run, name) for name in OF_TRIALS} | {"metric": metric}
    _agree(path, found, wanted, "what is asked for")
    return list(found.trials)


def _trials(run: RunSection, metric: str, images: float | None, done: list[Trial]) -> Trials:
    terms = {name: getattr(run, name) for name in OF_TRIALS}
    fields = {**terms, "metric": metric, "images": images, "trials": done, "chosen": _best(done)}
    plain = Trials.model_construct(**fields, digest="").model_dump(mode="json")
    return Trials(**fields, digest=_digest(plain))


def _digest(plain: Mapping[str, Any]) -> str:
    return canonical_digest({name: value for name, value in plain.items() if name != "digest"})


def _by_settings(trials: Sequence[Trial]) -> list[list[Trial]]:
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        found[canonical_json(trial.settings)].append(trial)
    return list(found.values())


def _best(trials: Sequence[Trial]) -> Settings:
    """The settings with the highest mean, of equals the first."""
    return max(_by_settings(trials), key=lambda own: sum(t.value for t in own) / len(own))[0].settings
