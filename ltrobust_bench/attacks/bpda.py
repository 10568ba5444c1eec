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
        modules: names of submodules, see :func:`declared`.
        targets: see :func:`ltrobust_bench.attacks.nearest_t.nearest_t`.

    Raises:
        UsageError: see :func:`straight_through`; for wrong input.
    """
    from ltrobust_bench.attacks.nearest_t import targeted
    from ltrobust_bench.attacks.pma import phases
    from ltrobust_bench.attacks.pursuit import on_margin, pursue

    settings.setdefault("steps", 100)
    with straight_through(model, modules):
        passes = [*phases(settings["steps"]), on_margin, *targeted(model, x, y, targets, **settings)]
        return pursue(model, x, y, passes, **settings)


def declared(model: nn.Module, modules: Sequence[str] = (DECLARED,)) -> list[nn.Module]:
    """The submodules of these names. A wrapper around the model changes nothing.

    A name is a whole one, as ``named_modules`` gives it; where there is none such, it is the last parts of one or more.
    Whatever is called ``preprocessing`` is declared, wherever it is.

    Example: of ``nn.Sequential(Clean(), nn.Sequential(...))`` the name ``0`` is ``Clean`` alone.
    """
    known, found = dict(model.named_modules()), []
    for name in modules:
        whole = [front + name for front in reversed(_fronts(model)) if front + name in known]
        ends = [full for full in known if f".{full}".endswith(f".{name}")]
        found += [known[full] for full in (whole[:1] if whole and name != DECLARED else ends)]
    return found


def parts_of(model: nn.Module) -> list[str]:
    """Names of the submodules that are the parts of a model, whatever wrappers are around it."""
    inside = [[name for name, _ in model.get_submodule(f.rstrip(".")).named_children()] for f in _fronts(model)]
    return next((names for names in reversed(inside) if names), [])


def _fronts(model: nn.Module) -> list[str]:
    """What stands before names inside a model, inside its only submodule, inside the only one of that, and so on."""
    fronts = [""]
    while len(inside := [name for name, _ in model.named_children()]) == 1:
        fronts.append(f"{fronts[-1]}{inside[0]}.")
        model = model.get_submodule(inside[0])
    return fronts


@contextmanager
def straight_through(model: nn.Module, modules: Sequence[str]) -> Iterator[None]:
    """Inside, where the model is asked, each of ``modules`` computes what it does and has the gradient of the identity.

    Raises:
        UsageError: if there is none, one of them makes no image of the same shape of an image, or was never called.
    """
    from torch import Tensor

    found = {name: declared(model, [name]) for name in modules}
    if missing := [name for name, parts in found.items() if not parts]:
        raise UsageError(
            f"the model has no submodule called {' or '.join(missing)}; name what preprocesses its images, or call it "
            f"{DECLARED!r}."
        )
    names = {part: name for name, parts in found.items() for part in parts}
    called: set[str] = set()

    def through(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor:
        x = next(iter((*given, *named.values())), None)
        shapes = [tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__ for seen in (x, output)]
        if not isinstance(x, Tensor) or shapes[0] != shapes[1]:
            raise UsageError(
                f"{names[module]} turns images of shape {shapes[0]} into {shapes[1]}; BPDA needs preprocessing that "
                "keeps the shape."
            )
        called.add(names[module])
        result: Tensor = output.detach() + (x - x.detach()).to(output.dtype)
        return result

    hooks = [part.register_forward_hook(through, with_kwargs=True) for part in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    for name in modules:
        if name not in called:
            raise UsageError(
                f"the model computes its images without calling {name} as a module (it is traced, or only the forward "
                f"of {name} is called), so BPDA cannot act: call the module itself, in a model that is not traced."
            )
