"""PGD on another model (Papernot et al., arXiv 1605.07277)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self, Unpack

from ltrobust_bench.attacks.terms import Climbing, Stage, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltrobust_bench.attacks.terms import Settings


class Transfer(Climbing):
    """PGD on a second model."""

    help: ClassVar[str] = "PGD on another model (Papernot et al. 2016)"
    needs_surrogate: ClassVar[bool] = True
    kind: Literal["transfer"]

    def stages(self, on: Target) -> dict[str, Stage]:
        """One.

        Raises:
            UsageError: if there is no second model.
        """
        other = on.second(self.name)
        run = on.stage(f"{self.name}/transfer", transfer, surrogate=other, **self.settings(on))
        # Whoever calls a stage splits the model's own batches; those of the second one are split here.
        return {"transfer": lambda x, y, position: other.fit(lambda: run(x, y, position), len(x))}

    @classmethod
    def standard(cls) -> Self:
        """PGD-20."""
        return cls(name="transfer", kind="transfer", steps=20, step_size="epsilon/4", start="uniform", restarts=1)


def transfer(model: nn.Module, x: Tensor, y: Tensor, *, surrogate: nn.Module, **settings: Unpack[Settings]) -> Tensor:
    """PGD on ``surrogate``; ``model`` is only asked which restart to keep.

    Gradients of a model that masks its own do not mislead this attack.

    Args:
        model, x, y, settings: see :class:`ltrobust_bench.attacks.terms.Settings`.
        surrogate: another model from pixels to logits.

    Raises:
        UsageError: for wrong input.
    """
    from ltrobust_bench.api import cross_entropy
    from ltrobust_bench.attacks.engine import climb

    return climb(surrogate, x, y, [cross_entropy], judge=model, **settings)
