"""The probability margin attack, PMA (Xie et al., CVPR 2025, arXiv 2411.15210)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self, Unpack

from ltrobust_bench.attacks.terms import Pursuing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.pursuit import Objective, Phases, Settings

PASSES = 2


class PMA(Pursuing):
    """PMA: two passes on the margin of probabilities."""

    help: ClassVar[str] = "PMA, two passes on the margin of probabilities (Xie et al., CVPR 2025)"
    kind: Literal["pma"]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One."""
        return {"pma": on.stage(f"{self.name}/pma", pma, **self.settings(on))}

    def passes(self, classes: int) -> float:
        """As :class:`Pursuing`, of both passes."""
        return super().passes(classes) * PASSES

    @classmethod
    def standard(cls) -> Self:
        """Two passes of 100 steps."""
        return cls(name="pma", kind="pma", steps=100, start="uniform", restarts=1, votes=1)


def probability_margin(logits: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
    """max_{k != y} p_k - p_y per image (eq. 5), p the softmax of the logits."""
    from ltrobust_bench.attacks.pursuit import margin

    return margin(logits.softmax(dim=1), y)


def true_probability(logits: Tensor, y: Tensor, places: Tensor) -> Tensor:
    """p_y per image."""
    return logits.softmax(dim=1).gather(1, y[:, None]).squeeze(1)


def other_probability(logits: Tensor, y: Tensor, places: Tensor) -> Tensor:
    """max_{k != y} p_k per image."""
    return logits.softmax(dim=1).scatter(1, y[:, None], -1).amax(dim=1)


def phases(steps: int) -> list[Phases]:
    """What the two passes climb, as the authors' released code: a first step uphill in p_y, away from where the image
    lies; until half of the steps one term of the margin alone, -p_y in the first pass and max p_k in the second; then
    the margin."""

    def lowering(logits: Tensor, y: Tensor, places: Tensor) -> Tensor:
        return -true_probability(logits, y, places)

    def passed(term: Objective) -> Phases:
        return lambda step: true_probability if step < 1 else term if step < steps / 2 else probability_margin

    return [passed(lowering), passed(other_probability)]


def pma(model: nn.Module, x: Tensor, y: Tensor, **settings: Unpack[Settings]) -> Tensor:
    """PMA: of each image the first iterate that fools the model, else the last.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.pursuit.Settings`. Default: 100 steps in
            each of the two passes.

    Raises:
        UsageError: for wrong input.

    Example: ``pma(model, x, y, epsilon=8 / 255)``
    """
    from ltrobust_bench.attacks.pursuit import pursue

    settings.setdefault("steps", 100)
    return pursue(model, x, y, phases(settings["steps"]), **settings)
