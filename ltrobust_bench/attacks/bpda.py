"""Backward pass differentiable approximation, BPDA (Athalye et al., ICML 2018, arXiv 1802.00420)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Unpack

from pydantic import Field

from ltrobust_bench.attacks.terms import Count, Pursuing, Stage, Target
from ltrobust_bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Settings

DECLARED = "preprocessing"
"""How a model declares its preprocessing: a submodule of this name, from images to images of the same shape."""


class BPDA(Pursuing):
    """PMA's two passes, one on the margin of logits and one towards each of the nearest classes; declared preprocessing
    is the identity in the backward pass."""

    help: ClassVar[str] = "declared preprocessing is the identity in backward passes (BPDA, Athalye et al., ICML 2018)"
    kind: Literal["bpda"]
    modules: Annotated[list[str], Field(min_length=1, description="names of the submodules that preprocess")]
    targets: Annotated[Count, Field(description="classes that are climbed towards one by one; at most C - 1")]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"bpda": on.stage(f"{self.name}/bpda", bpda, **self.settings(on))}

    def passes(self, classes: int) -> float:
        """As :class:`Pursuing`, of three passes and one for each target; and one for each class for the order."""
        return classes + super().passes(classes) * (3 + min(self.targets, classes - 1))

    @classmethod
    def standard(cls) -> Self:
        """What is called ``preprocessing`` in the model; as many targets as AutoAttack's."""
        return cls(
            name="bpda", kind="bpda", steps=100, start="uniform", restarts=1, votes=1, modules=[DECLARED], targets=9
        )


def bpda(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    modules: Sequence[str] = (DECLARED,),
    targets: int = 9,
    **settings: Unpack[Settings],
) -> Tensor:
    """PMA's two passes, one on the margin of logits, then one towards each of the nearest classes, where the gradient
    of each of ``modules`` is taken for the identity's.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`. Default: 100 steps in
            each of the passes.
        modules: names of submodules, as ``named_modules`` gives them or their last parts.
        targets: see :func:`ltrobust_bench.attacks.nearest_t.nearest_t`.

    Raises:
        UsageError: if the model has no such submodule, or it changes the shape of the images; for wrong input.
    """
    from ltrobust_bench.attacks.nearest_t import targeted
    from ltrobust_bench.attacks.pma import phases
    from ltrobust_bench.attacks.pursuit import on_margin, pursue

    settings.setdefault("steps", 100)
    with straight_through(model, modules):
        passes = [*phases(settings["steps"]), on_margin, *targeted(model, x, y, targets, **settings)]
        return pursue(model, x, y, passes, **settings)


def declared(model: nn.Module, modules: Sequence[str] = (DECLARED,)) -> list[nn.Module]:
    """The submodules of these names, or whose names end in them: a wrapper around the model changes nothing."""
    ends = tuple(f".{name}" for name in modules)
    return [part for name, part in model.named_modules() if f".{name}".endswith(ends)]


@contextmanager
def straight_through(model: nn.Module, modules: Sequence[str]) -> Iterator[None]:
    """Inside, each of ``modules`` computes what it does and has the gradient of the identity."""
    found = declared(model, modules)
    if not found:
        raise UsageError(
            f"the model has no submodule called {' or '.join(modules)}; name what preprocesses its images, or call it "
            f"{DECLARED!r}."
        )

    def through(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = given[0]
        if output.shape != x.shape:
            raise UsageError(
                f"{type(module).__name__} turns images of shape {tuple(x.shape)} into {tuple(output.shape)}; BPDA "
                "needs preprocessing that keeps the shape."
            )
        return output.detach() + (x - x.detach())

    hooks = [part.register_forward_hook(through) for part in found]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
