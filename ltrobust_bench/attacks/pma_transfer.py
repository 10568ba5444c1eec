"""PMA on another model, where the attacked one is asked at every iterate (after Papernot et al., arXiv 1605.07277)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self, Unpack

from ltrobust_bench.attacks.pma import PASSES
from ltrobust_bench.attacks.terms import FORWARD_SHARE, Pursuing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Settings


class PMATransfer(Pursuing):
    """PMA along a second model's gradients."""

    help: ClassVar[str] = "PMA along another model's gradients, the model asked at every iterate"
    needs_surrogate: ClassVar[bool] = True
    kind: Literal["pma-transfer"]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One.

        Raises:
            UsageError: if there is no second model.
        """
        other = on.second(self.name)
        run = on.stage(f"{self.name}/pma-transfer", pma_transfer, surrogate=other, **self.settings(on))
        return {"pma-transfer": lambda x, y, position: other.fit(lambda: run(x, y, position), len(x))}

    def passes(self, classes: int) -> float:
        """Of the attacked model: a forward for each vote of each step."""
        return self.restarts * PASSES * self.steps * self.votes * FORWARD_SHARE

    @classmethod
    def standard(cls) -> Self:
        """Two passes of 100 steps."""
        return cls(name="pma-transfer", kind="pma-transfer", steps=100, start="uniform", restarts=1, votes=1)


def pma_transfer(
    model: nn.Module, x: Tensor, y: Tensor, *, surrogate: nn.Module, **settings: Unpack[Settings]
) -> Tensor:
    """PMA whose gradients are ``surrogate``'s: of each image the first iterate that fools ``model``, else the last.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`. Default: 100 steps in
            each of the two passes.
        surrogate: another model from pixels to logits.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.attacks.pma import phases
    from ltrobust_bench.attacks.pursuit import pursue

    settings.setdefault("steps", 100)
    return pursue(model, x, y, phases(settings["steps"]), climbed=surrogate, **settings)
