"""What every kind of attack has in common. A kind is one file beside this one; importing it does not import torch.

To add an attack ``my-attack``, write ``my_attack.py`` here with one subclass of :class:`Attack` (or of
:class:`Climbing`, for projected gradient ascent on another objective): its ``kind``, a line of ``help``, exactly its
own arguments as typed fields, ``stages`` and ``passes``. A protocol then states it as ``kind = "my-attack"``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self, TypedDict

from pydantic import AfterValidator, Field

from ltrobust_bench.attacks.ball import Ball
from ltrobust_bench.errors import UsageError
from ltrobust_bench.numbers import number
from ltrobust_bench.terms import Number, Start, Strict

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Stage = Callable[["Tensor", "Tensor", int], "Tensor"]
"""(x [B, channels, height, width] in [0, 1], y [B], position of the batch in the stage) -> adversarial images."""
FORWARD_SHARE = 1 / 3
"""A forward alone, of a forward and a backward."""


def _not_negative(value: Number) -> Number:
    try:
        size = number(value, 1.0)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if size < 0:
        raise ValueError("must be at least 0")
    return value


Size = Annotated[Number, AfterValidator(_not_negative)]
"""A length on the [0, 1] pixel scale, as papers write it: ``0.03``, ``"8/255"``, ``"epsilon/4"``."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Surrogate(Protocol):
    """A second model, pixels to logits, whose batches are split where they do not fit in memory."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def fit(self, work: Callable[[], Tensor], images: int) -> Tensor:
        """The result of ``work``, which uses this model on ``images`` images."""
        ...


@dataclass(frozen=True)
class Target:
    """What is attacked, and within what.

    Attributes:
        model: pixels to logits, in eval mode.
        classes: C.
        epsilon: radius, [0, 1] pixel scale.
        ball: the threat model.
        seed: of the evaluation.
        device: where the images are.
        surrogate: the second model, for attacks that need one.
    """

    model: nn.Module
    classes: int
    epsilon: float
    ball: Ball
    seed: int
    device: torch.device | str
    surrogate: Surrogate | None = None

    def stage(self, stream: str, attack: Callable[..., Tensor], **settings: Any) -> Stage:
        """``attack(model, x, y, epsilon=, ball=, generator=, **settings)`` as a stage.

        Args:
            stream: name of its randomness, ``attack/stage``; each batch's is seeded by it and by the batch's
                position, so that an evaluation can stop and go on anywhere.
        """
        from ltrobust_bench.randomness import seeded

        def run(x: Tensor, y: Tensor, position: int) -> Tensor:
            generator = seeded(self.seed, stream, position)
            return attack(self.model, x, y, epsilon=self.epsilon, ball=self.ball, generator=generator, **settings)

        return run

    def second(self, name: str) -> Surrogate:
        """The second model, on which the attack called ``name`` is crafted.

        Raises:
            UsageError: if there is none.
        """
        if self.surrogate is None:
            raise UsageError(f"attack {name} needs a second model; give one with --transfer-from.")
        return self.surrogate


class Attack(Strict):
    """One attack of an evaluation, every argument stated. A subclass states ``kind: Literal["its-name"]``.

    Class attributes:
        help: one line for listings.
        needs_surrogate: whether it is crafted on a second model.
    """

    help: ClassVar[str] = ""
    needs_surrogate: ClassVar[bool] = False

    name: str = Field(description="in records and tables")
    kind: str

    def stages(self, on: Target) -> dict[str, Stage]:
        """Its stages in order; each is run on the images that the earlier ones left standing."""
        raise NotImplementedError

    def passes(self, classes: int) -> float:
        """Forward-and-backward passes that it spends on an image it does not break; a forward alone counts
        ``FORWARD_SHARE``."""
        raise NotImplementedError

    def named(self, classes: int) -> str:
        """Its name in the record of a model with that many classes."""
        return self.name

    @classmethod
    def standard(cls) -> Self | None:
        """With the arguments that are usual for it, for users who ask for it by its kind; None: only protocols do."""
        return None


class Settings(TypedDict, total=False):
    """Keyword arguments that the functions of simple attacks share.

    They take ``model`` (images in [0, 1] to logits [B, C]), ``x`` [B, channels, height, width] and ``y`` (int64 [B]),
    attack in eval mode what the model returns, and give adversarial images, detached, shape of ``x``.

    Keys:
        epsilon, step_size: [0, 1] pixel scale, one value or one per image [B]. Required.
        steps: gradient steps. Required.
        ball: the threat model; default Linf.
        start: see :func:`ltrobust_bench.attacks.engine.start_point`; default ``uniform``.
        restarts: independent starts, of which an image keeps the first that is misclassified; default 1.
        generator: of the start; on the processor it draws the same for any device of ``x``.
    """

    epsilon: float | Tensor
    step_size: float | Tensor
    steps: int
    ball: Ball
    start: Start | Tensor
    restarts: int
    generator: torch.Generator | None


class Climbing(Attack):
    """Projected gradient ascent: ``steps`` of ``step_size`` from each of ``restarts`` starts."""

    steps: Annotated[int, Field(ge=0, le=100_000)]
    step_size: Size
    start: Start
    restarts: Count

    def settings(self, on: Target) -> dict[str, Any]:
        """Its arguments as keywords for a function that takes :class:`Settings`."""
        size = number(self.step_size, on.epsilon)
        return {"steps": self.steps, "step_size": size, "start": self.start, "restarts": self.restarts}

    def passes(self, classes: int) -> float:
        """One for each step."""
        return self.restarts * self.steps


class Pursuing(Attack):
    """Projected ascent that asks the model at every iterate (:mod:`ltrobust_bench.attacks.pursuit`): ``steps`` in each
    pass, from each of ``restarts`` starts. A random model is fooled where the mean logits of ``votes`` forwards are."""

    steps: Annotated[int, Field(ge=2, le=100_000)]
    start: Start
    restarts: Count
    votes: Annotated[Count, Field(description="forwards whose mean logits are the verdict; for random models")]

    def settings(self, on: Target) -> dict[str, Any]:
        """Its arguments as keywords for its function; lengths in pixels."""
        stated = {name: getattr(self, name) for name in type(self).model_fields if name not in ("name", "kind")}
        lengths = {name: number(stated[name], on.epsilon) for name in ("noise", "width") if name in stated}
        return stated | lengths

    def passes(self, classes: int) -> float:
        """One for each step; with votes, one for each of them, and a forward for each that gives the verdict."""
        return self.restarts * self.steps * (1 if self.votes == 1 else self.votes * (1 + FORWARD_SHARE))
