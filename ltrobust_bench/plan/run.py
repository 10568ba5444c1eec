"""What a run is: everything that decides its result, and the key made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ltrobust_bench.attacks.ball import ThreatModel
from ltrobust_bench.data.extra import Extra
from ltrobust_bench.models.pretrained import THEIRS, Pretrained
from ltrobust_bench.protocol.spec import Crafting, Profile, Recipe, Track
from ltrobust_bench.terms import Strict, canonical_digest

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Text = Annotated[str, Field(max_length=200)]


Settings = Annotated[dict[Text, bool | int | float | Text | None], Field(max_length=100)]


Counts = Annotated[list[Annotated[int, Field(ge=1, le=10**9)]], Field(min_length=2, max_length=100_000)]


Holdout = Literal["val"]
"""What a run is tested on instead of the test set: ``val``, a tenth of each class of its training images."""


CUTS = ("limit_train", "limit_test", "epochs", "holdout")
"""Fields of a run that make it a reduced one."""


class Augmentation(Strict):
    """Training augmentation: zero padding for random crops (pixels) and horizontal flips."""

    crop_padding: int = Field(ge=0)
    flip: bool


class Policy(Strict):
    """How the arithmetic of training is carried out; without a word it is the reference path. Everything here is the
    same mathematics, up to rounding: the precision is the recipe's."""

    crafting: Crafting = Field(default="network", description="what is attacked while crafting in eval mode")
    memory_format: Literal["contiguous", "channels_last"] = Field(
        default="contiguous", description="of weights and activations"
    )
    compile: bool = Field(default=False, description="torch.compile")

    @classmethod
    def asked(cls, crafting: Crafting, compiled: bool, precision: str | None) -> Policy:
        """What goes with these: the memory format is the fast one, unless all is as the reference path has it."""
        plain = crafting == "network" and not compiled and precision != "bf16"
        return cls(crafting=crafting, memory_format="contiguous" if plain else "channels_last", compile=compiled)


class RunSection(Strict):
    """What was run. Its digest is the run key: same key, same run."""

    protocol: Name
    protocol_digest: Sha256
    track: Track
    dataset: Name
    imbalance_ratio: float = Field(ge=1)
    profile: Profile
    train_counts: Counts = Field(description="training images per label")
    test_counts: Counts = Field(description="test images per label")
    train_index_sha256: Sha256
    test_index_sha256: Sha256
    method: Name
    card_version: int = Field(ge=1)
    options: Settings
    plugins: list[Name] = Field(max_length=20)
    model: Name
    seed: int = Field(ge=0, lt=2**31)
    epsilon: float = Field(gt=0, description="evaluation radius, [0,1] pixel scale")
    recipe: Recipe
    augmentation: Augmentation
    limit_train: int | None = Field(default=None, ge=1)
    limit_test: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1, description="budget given by hand instead of the recipe's")
    overrides: Settings = Field(default={}, description="recipe settings given by hand")
    source_sha256: Sha256 | None = Field(
        default=None, description="identity of a data set that no registry describes: digest of a folder's files"
    )
    base_key: Sha256 | None = Field(default=None, description="run key of the finished run it builds on")
    policy: Policy = Policy()
    threat_model: ThreatModel = Field(default="Linf", description="norm of the perturbations, in training and attacks")
    holdout: Holdout | None = Field(
        default=None, description="tested on so much of each class's training images, which it was not trained on"
    )
    extra: Extra | None = Field(default=None, description="training images beyond the split's")
    pretrained: Pretrained | None = Field(default=None, description="weights of others that it starts from")

    @model_validator(mode="after")
    def _resolved(self) -> RunSection:
        if len(self.train_counts) != len(self.test_counts):
            raise ValueError("test_counts: must have as many classes as train_counts")
        if self.extra is not None and len(self.extra.counts) != len(self.train_counts):
            raise ValueError("extra.counts: must have as many classes as train_counts")
        if self.pretrained is not None and not THEIRS.fullmatch(self.model):
            raise ValueError("pretrained: is of networks of timm and torchvision")
        if self.threat_model == "Linf" and self.epsilon > 1:
            raise ValueError("epsilon: must be at most 1 in Linf, [0,1] pixel scale")
        if isinstance(self.recipe.attack.epsilon, str) or isinstance(self.recipe.attack.step_size, str):
            raise ValueError("recipe.attack: must hold numbers, not text")
        return self

    @property
    def combination(self) -> str:
        """Method and plug-ins as one name: ``at+awp``."""
        return combined(self.method, self.plugins)

    @property
    def cuts(self) -> dict[str, int | str]:
        """What was cut by hand, by name (``CUTS``)."""
        found = {name: getattr(self, name) for name in CUTS}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def reduced(self) -> bool:
        """Whether the run was cut short by hand; reduced runs never join a full board."""
        return bool(self.cuts)

    @property
    def off_recipe(self) -> bool:
        """Whether recipe settings were given by hand. A precision is none of them: it is a way of computing the recipe,
        and no training can cheat a verdict that is float32's."""
        return bool(self.overrides.keys() - {"precision"})

    @property
    def beyond(self) -> str | None:
        """What of its training comes from elsewhere than the split, in a line; None: nothing does."""
        texts = [part.text for part in (self.extra, self.pretrained) if part is not None]
        return "; ".join(texts) or None

    @property
    def asked_beyond(self) -> dict[str, str]:
        """What a request says to have that, by its field."""
        named = {"extra_data": self.extra and self.extra.name, "pretrained": self.pretrained and self.pretrained.asked}
        return {field: name for field, name in named.items() if name}

    @property
    def leaks(self) -> bool:
        """Whether what comes from elsewhere may bring back what the cut took from the tail."""
        return self.pretrained is not None or (self.extra is not None and self.extra.leaks)

    @property
    def asked_ratio(self) -> float | None:
        """The imbalance ratio that the split was cut to; None: the data set kept its own."""
        return None if self.profile == "own" else self.imbalance_ratio

    @property
    def ratio(self) -> str:
        """The imbalance ratio for titles, see :func:`ratio_text`."""
        return ratio_text(self.imbalance_ratio, self.profile, self.train_counts, self.cuts)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch: ceil(N / batch_size), or floor with ``drop_last``. A last batch of a single image
        is always dropped: batch norm has no statistics of one value, and one image must not decide the last step."""
        whole, rest = divmod(sum(self.train_counts), self.recipe.batch_size)
        return max(1, whole + (rest > 1 and not self.recipe.drop_last))

    def key(self) -> str:
        """The run key: SHA-256 (hex) of the section; fields at their default are left out, so that a field added
        later does not change the key of a run that does not use it."""
        return canonical_digest(self.model_dump(mode="json", exclude_defaults=True))

    def entry_key(self) -> str:
        """The same digest of what the seeds of an entry share: the run that one builds on has its seed."""
        return canonical_digest(self.model_dump(mode="json", exclude_defaults=True, exclude={"seed", "base_key"}))

    def folder_name(self) -> str:
        """Readable and unique: ``reat-digits-lt-ir20-small-s0-1a2b3c4d``."""
        return (
            f"{self.combination}-{self.dataset}-ir{self.imbalance_ratio:g}-{self.model}-s{self.seed}-{self.key()[:8]}"
        )

    def record_path(self) -> str:
        """Place of the record below ``results/records``."""
        name = f"{self.model}-s{self.seed}-{self.key()[:8]}.json"
        return f"{self.protocol}/{self.dataset}-ir{self.imbalance_ratio:g}/{self.combination}/{name}"


def combined(method: str, plugins: Iterable[str]) -> str:
    """A method with its plug-ins as one name: ``at+awp``."""
    return "+".join([method, *plugins])


def ratio_text(asked: float, profile: str, train_counts: Sequence[int], cuts: Iterable[str]) -> str:
    """An imbalance ratio for titles: ``50``, or ``50 asked, 43.2 left`` where training images were cut by hand.

    Args:
        asked: the ratio that the split was cut to.
        profile: of the split.
        train_counts: images per class that are left.
        cuts: names of what was cut, see ``CUTS``.
    """
    left = round(max(train_counts) / min(train_counts), 1)
    cut = profile in ("exp", "step") and not {"limit_train", "holdout"}.isdisjoint(cuts)
    return f"{asked:g} asked, {left:g} left" if cut and left != asked else f"{asked:g}"
