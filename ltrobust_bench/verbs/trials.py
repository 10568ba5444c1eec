"""The file that ``tune`` writes: every trial that was made for it, and which settings they chose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ltrobust_bench.data.extra import Extra
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.pretrained import Pretrained
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import Name, Profile, Settings, Sha256, Text, Track
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.scores.intervals import Spread, over_seeds
from ltrobust_bench.terms import Strict, canonical_digest, canonical_json, first_problem

OF_RUN = (
    "method",
    "card_version",
    "plugins",
    "dataset",
    "source_sha256",
    "protocol",
    "protocol_digest",
    "track",
    "extra",
    "pretrained",
)
"""What a run that takes settings from trials must share with them."""
OF_TRIALS = (*OF_RUN, "model", "profile", "train_index_sha256", "test_index_sha256", "epochs")
"""What trials in one file share, so that they may be compared."""
LATER = ("extra", "pretrained", "at_most")
"""Fields that older files lack; left out of the digest where they say nothing."""


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
    extra: Extra | None = Field(default=None, description="training images beyond the split's")
    pretrained: Pretrained | None = Field(default=None, description="weights of others that they start from")
    at_most: int | None = Field(default=None, ge=1, description="settings that may be tried; null: older files")
    images: float | None = Field(description="held-out images behind the metric; null: it is no proportion")
    trials: list[Trial] = Field(min_length=1)
    chosen: Settings = Field(description="the settings with the highest mean over their seeds, of equals the first")
    digest: Sha256 = Field(description="SHA-256 of all the rest")

    @model_validator(mode="after")
    def _unedited(self) -> Trials:
        if self.chosen != best(self.trials) or self.digest != digest_of(self.model_dump(mode="json")):
            raise ValueError("digest: is not that of the trials; was the file edited?")
        return self

    @property
    def count(self) -> int:
        """How many settings were tried."""
        return len(by_settings(self.trials))

    def table(self) -> list[tuple[Settings, list[int], Spread]]:
        """Each of the settings with its seeds, and the metric over them; its interval is t over seeds, of one seed
        Wilson's, and NaN where the metric is no proportion."""
        images = float("nan") if self.images is None else self.images
        return [
            (own[0].settings, [trial.seed for trial in own], over_seeds([trial.value for trial in own], images))
            for own in by_settings(self.trials)
        ]


def read_trials(path: Path | str) -> Trials:
    """What :func:`~ltrobust_bench.verbs.tune` wrote.

    Raises:
        UsageError: if there is no such file, or it is damaged or was edited.
    """
    try:
        return Trials.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        raise UsageError(f"no trials at {path}; `ltbench tune` writes them.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} holds no trials: {first_problem(error)}.") from None


def tuned_plan(request: Request, tuned: Path | str | None, data_dir: Path | str | None = None) -> tuple[Plan, int]:
    """The plan of a request with the settings chosen in a file of trials, and how many were tried; without a file the
    request's own plan, and 0.

    Raises:
        UsageError: if the trials are of another method, data set, protocol or card, or settings are given twice.
    """
    if tuned is None:
        return request.to_plan(data_dir), 0
    trials, given = read_trials(tuned), dict(request.settings)
    agree(tuned, trials, {"method": request.method}, "this run")  # before another method's settings are looked up
    for name in given.keys() & trials.chosen.keys():
        raise UsageError(f"{tuned} chooses {name}={trials.chosen[name]}: leave {name} out, or the file.")
    plan = request.replace(settings=given | trials.chosen).to_plan(data_dir)
    agree(tuned, trials, {name: getattr(plan.run, name) for name in OF_RUN}, "this run")
    return plan, trials.count


def agree(path: Path | str, trials: Trials, wanted: Mapping[str, Any], whose: str) -> None:
    """Refuse trials of something else.

    Raises:
        UsageError: naming what differs.
    """
    for name, value in wanted.items():
        if (theirs := getattr(trials, name)) != value:
            raise UsageError(f"{path} holds trials of another {name.replace('_', ' ')}: {theirs}, {whose} has {value}.")


def digest_of(plain: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a file of trials, as JSON holds it, without its own digest."""
    left_out = {"digest", *(name for name in LATER if plain.get(name) is None)}
    return canonical_digest({name: value for name, value in plain.items() if name not in left_out})


def by_settings(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of the same settings together, in the order in which they were first tried."""
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        found[canonical_json(trial.settings)].append(trial)
    return list(found.values())


def best(trials: Sequence[Trial]) -> Settings:
    """The settings with the highest mean, of equals the first."""
    return max(by_settings(trials), key=lambda own: sum(t.value for t in own) / len(own))[0].settings
