"""What a protocol states. Nothing about budget, attack or split hides in code: every argument is a field.

Numbers on the pixel scale are written as in the papers (``"8/255"``, ``"epsilon/4"``) and turned into floats
by :func:`ltrobust_bench.numbers.number` with the data set's epsilon.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ltrobust_bench.attacks.ball import ThreatModel
from ltrobust_bench.attacks.registry import AnyAttack
from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol.optimiser import FLAT, Optimizer, Sgd, flattened, lifted
from ltrobust_bench.protocol.schedule import Schedule
from ltrobust_bench.terms import BNMode, Number, Start, Strict, canonical_digest

IMAGE_FOLDER, IMAGE_LISTS = "folder", "lists"
"""How names of data sets begin that are folders of images, and lists of them; the former is what a protocol calls the
terms of both."""
Forward = Literal["nat", "adv"]
Track = Literal["fixed", "paper"]
Augment = Literal["none", "randaugment", "autoaugment"]
Activation = Literal["relu", "silu"]
Status = Literal["frozen", "candidate", "disposable", "smoke"]
"""Frozen: its terms stay. Candidate: they may change until its first board is published. Disposable and smoke: its
numbers are not for papers."""
Profile = Literal["exp", "step", "balanced", "own"]


class AttackSpec(Strict):
    """The inner maximisation of adversarial training."""

    epsilon: Number = Field(description="radius of the ball, [0,1] pixel scale")
    step_size: Number = Field(description="length of one step, [0,1] pixel scale")
    steps: int = Field(ge=0, le=100_000)
    start: Start
    clamp_start: bool = Field(description="clamp the noisy start to [0,1] before the first gradient")
    bn_mode: BNMode = Field(
        description="batch norm while crafting: eval (running statistics), batch (batch statistics, running ones "
        "untouched), train (batch statistics, running ones updated)"
    )

    @field_validator("epsilon", "step_size")
    @classmethod
    def _not_negative(cls, value: Number) -> Number:
        if isinstance(value, float) and value < 0:
            raise ValueError("must be at least 0")
        return value


Crafting = Literal["network", "folded", "winograd"]
"""On what an attack climbs: the network itself, a copy of it with batch norm folded into the convolutions before it, or
such a copy that also computes 3x3 convolutions by Winograd's method. The same up to rounding, in float32."""


Search = Literal["network", "folded", "winograd", "tf32", "bf16"]
"""On what the attacks of an evaluation climb: as :data:`Crafting`, or a folded copy whose products are in TF32, or all
of which is in bfloat16. The network itself, in float32, gives every verdict."""


Precision = Literal["tf32", "fp32", "bf16"]
"""Of training: float32 whose products are in TF32 where the device has it (what the official codes do by torch's
default for convolutions); float32 with TF32 off; or bfloat16 for what the network computes, float32 for its weights
and losses. It is a way of training: verdicts are always made in float32 with TF32 off."""


class Recipe(Strict):
    """How a network is trained: the protocol's ``[training]`` section, or a card's over it (track ``paper``)."""

    epochs: int = Field(
        ge=0, le=100_000, description="budget in epochs of ceil(N / batch_size) optimiser steps each; 0: post-hoc"
    )
    batch_size: int = Field(ge=2)
    drop_last: bool = Field(description="drop the last, incomplete batch of an epoch")
    lr: float = Field(gt=0)
    optimizer: Optimizer
    weight_decay: float = Field(ge=0)
    schedule: Schedule
    precision: Precision
    attack: AttackSpec
    bn_forwards: list[Forward] = Field(
        description="train-mode forwards per step in order, those beyond what the loss needs included; empty: "
        "only what the loss needs"
    )
    bn_forwards_after: list[Forward] = Field(description="train-mode forwards after the update, without gradient")
    clean_forward_before: bool = Field(
        default=False, description="a train-mode forward of the clean batch, discarded, before crafting"
    )
    augment: Augment = Field(
        default="none",
        description="policy before crop and flip: randaugment (2 operations, magnitude 8 of 31) or autoaugment (the "
        "CIFAR-10 policy)",
    )
    model: str | None = Field(default=None, description="network, where the recipe prescribes one")
    recalibrate_bn: Literal["none", "clean", "adversarial"] = Field(
        default="none",
        description="after training, running statistics of batch norm are taken anew from an epoch of training images, "
        "clean ones or crafted ones, by the weights that are deployed (which may be averages)",
    )
    activation: Activation = Field(default="relu", description="of the network, in the place of its ReLU")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share s of the outer loss that is its mean over all labels: (1 - s) L(y) + s mean_c L(c); "
        "attacks keep the true label",
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="rate at which the last block of a network of timm is left out for an image in training; those "
        "before it less often, in proportion to their depth (stochastic depth)",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="each batch passes through the network in so many parts, one in memory at a time; losses see the "
        "whole batch, batch norm in train mode sees a part, and its running statistics move with each part",
    )
    on_nan: Literal["stop", "skip-batch", "lower-lr"] = Field(
        default="stop",
        description="where a step's loss is not finite: the training stops, the step is undone, or it is undone and "
        "the learning rate halved from there on",
    )

    @model_validator(mode="after")
    def _parts_of_two(self) -> Recipe:
        if self.accumulate > 1 and self.batch_size < 2 * self.accumulate:
            raise ValueError(f"accumulate: leaves fewer than two of {self.batch_size} images for each part")
        return self

    @model_validator(mode="before")
    @classmethod
    def _lift(cls, stated: Any) -> Any:
        if not isinstance(stated, dict):
            return stated
        terms = stated.get("optimizer")
        if isinstance(terms, dict) and terms.get("kind") == "sgd":
            raise ValueError(f"optimizer: the terms of sgd, {' and '.join(FLAT)}, stand in the recipe itself")
        return lifted(stated)

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return flattened(handler(self))

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # What files hold: the terms of sgd in the recipe itself, or another optimiser's under `optimizer`.
        schema = handler.resolve_ref_schema(handler(core))
        others = schema["properties"]["optimizer"]
        others["oneOf"] = [k for k in others["oneOf"] if handler.resolve_ref_schema(k)["title"] != Sgd.__name__]
        del others["discriminator"]
        sgd = Sgd.model_json_schema()["properties"]
        schema["properties"] |= {name: sgd[name] for name in FLAT}
        schema["required"].remove("optimizer")
        schema["oneOf"] = [{"required": list(FLAT)}, {"required": ["optimizer"]}]
        return schema


class DatasetTerms(Strict):
    """What a protocol fixes for one data set."""

    epsilon: Number
    imbalance_ratio: float | None = Field(default=None, ge=1, description="none: the data set's own (profile own)")
    profile: Profile
    class_order: list[int] | None = Field(
        default=None, description="labels from the largest class to the smallest; none: the protocol's class_order"
    )
    model: str
    crop_padding: int = Field(ge=0)
    flip: bool
    test_images_per_class: int | None = Field(
        default=None, ge=1, description="first images of each class of the test set; none: as the protocol says"
    )

    @model_validator(mode="after")
    def _ratio_unless_own(self) -> DatasetTerms:
        if (self.imbalance_ratio is None) != (self.profile == "own"):
            raise ValueError("imbalance_ratio is stated for every profile but own")
        if self.class_order is not None and sorted(self.class_order) != list(range(len(self.class_order))):
            raise ValueError("class_order names every label once")
        return self


class Suite(Strict):
    """The suite: which attacks, in which order, in which batches, from which seed."""

    seed: int
    batch_size: int = Field(ge=1)
    search: Search = Field(
        default="network", description="what the attacks climb; the network itself confirms every success"
    )
    attacks: list[AnyAttack]


class Protocol(Strict):
    """A versioned protocol; its digest identifies it in every record."""

    name: str
    title: str
    status: Status
    threat_model: ThreatModel
    tail_thirds: Literal["rank"] = Field(description="head, medium, tail: thirds of the classes by training count")
    subset: Literal["ldam-0"] = Field(
        default="ldam-0", description="which images are kept: the literature's draw, see ltrobust_bench.data.split"
    )
    class_order: Literal["label"] = Field(default="label", description="class 0 is the largest")
    checkpoint: Literal["last"] = Field(default="last", description="the network that is attacked")
    test_images_per_class: int | None = Field(
        default=None, description="first images of each class of the test set; none: all of them"
    )
    crafting: Crafting = Field(
        default="network", description="what is attacked while crafting in eval mode, where nobody says otherwise"
    )
    small: bool = Field(
        default=False,
        description="a whole run is an hour of one core at most, so that anybody can do it again: what is stated about "
        "its records can be computed again",
    )
    training: Recipe
    evaluation: Suite
    datasets: dict[str, DatasetTerms]

    def terms(self, dataset: str) -> DatasetTerms:
        """What it fixes for ``dataset``.

        Raises:
            UsageError: if it says nothing about it.
        """
        key = terms_key(dataset)
        if key not in self.datasets:
            raise UsageError(
                f"protocol {self.name} says nothing about {dataset}: it covers {', '.join(sorted(self.datasets))}."
            )
        return self.datasets[key]

    def test_images(self, dataset: str) -> int | None:
        """Images of each class of the test set that are looked at, the first; None: all."""
        return self.terms(dataset).test_images_per_class or self.test_images_per_class

    def digest(self, dataset: str) -> str:
        """SHA-256 (hex) of the canonical JSON of everything the protocol states for ``dataset``: all but title, status,
        whether it is small, and the terms of other data sets, so that a frozen protocol can gain a data set. Fields at
        their default are left out, so that a field added later does not change it.

        Raises:
            UsageError: if it says nothing about the data set.
        """
        stated = self.model_dump(mode="json", exclude={"title", "status", "small"}, exclude_defaults=True)
        stated["datasets"] = {terms_key(dataset): self.terms(dataset).model_dump(mode="json", exclude_defaults=True)}
        return canonical_digest(stated)


def terms_key(dataset: str) -> str:
    """Under which name a protocol states its terms: the data set's own; ``folder`` for all folders and lists of
    images."""
    return IMAGE_FOLDER if is_own(dataset) else dataset


def is_own(dataset: str) -> bool:
    """Whether a data set is somebody's own images, in folders or lists, that no registry describes."""
    return re.match(f"({IMAGE_FOLDER}|{IMAGE_LISTS})[-:]", dataset) is not None
