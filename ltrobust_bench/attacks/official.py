"""AutoAttack's attacks by their authors' code (package pyautoattack), one at a time and one batch at a time.

Arguments, order and seeds are those of its ``run_standard_evaluation``, so the verdict is the same; but the caller
holds the state, so an evaluation can be resumed between any two batches (the package's own state file does not survive
that).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from ltrobust_bench.attacks.ball import LINF, Ball
from ltrobust_bench.attacks.terms import Attack, Count, Stage, Target
from ltrobust_bench.errors import UsageError
from ltrobust_bench.terms import first_problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Official(Attack):
    """One of the official attacks.

    Class attributes:
        fewest: classes that it needs.
    """

    fewest: ClassVar[int] = 2

    restarts: Count

    def build(self, on: Target, **common: Any) -> Any:
        """The official object, which has ``perturb(x, y)``.

        Args:
            common: arguments that all official attacks take.
        """
        raise NotImplementedError

    def stages(self, on: Target) -> dict[str, Stage]:
        """One.

        Raises:
            UsageError: for fewer classes than it needs.
        """
        if on.classes < self.fewest:
            raise UsageError(f"attack {self.kind} needs at least {self.fewest} classes, the model has {on.classes}.")
        common = {"norm": on.ball.name, "eps": on.epsilon, "seed": on.seed, "verbose": False, "device": on.device}
        attack = self.build(on, n_restarts=self.restarts, **common)

        def run(x: Tensor, y: Tensor, position: int) -> Tensor:
            import torch

            # The official attacks seed torch's global generators, the same way for each batch, on CUDA that of the
            # current device; nobody else must notice. Their warnings, one per batch, are what the reliability report
            # measures.
            devices = list(range(torch.cuda.device_count())) if x.is_cuda else []
            with torch.random.fork_rng(devices=devices), torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="pyautoattack")
                found: Tensor = attack.perturb(x, y)
                return found.detach()

        return {self.kind: run}


def run_alone(
    kind: type[Attack],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    ball: Ball = LINF,
    seed: int = 0,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Tensor:
    """A kind of attack on one batch, each stage in turn on the images still classified correctly.

    Args:
        kind: one that has a standard form.
        model: pixels to logits.
        x: images in [0, 1], shape [B, channels, height, width].
        y: labels, int64, shape [B].
        epsilon: radius, [0, 1] pixel scale.
        ball: the threat model.
        seed: the official attacks seed themselves.
        generator: unused.
        **settings: arguments of the kind, where they are not to be its standard ones.

    Returns:
        Adversarial images where it succeeded, ``x`` elsewhere.

    Raises:
        UsageError: for wrong input or settings.
    """
    import torch

    from ltrobust_bench.attacks.engine import check_images, crafting_mode

    check_images(x, y, epsilon)
    usual = kind.standard()
    assert usual is not None
    try:
        attack = kind.model_validate(usual.model_dump() | settings)
    except ValueError as error:
        raise UsageError(f"attack {usual.kind}: {first_problem(error)}") from None
    with crafting_mode(model, "eval"):
        with torch.no_grad():
            logits = model(x)
        robust, adversarial = logits.argmax(dim=1) == y, x.clone()
        target = Target(model, logits.shape[1], epsilon, ball, seed, x.device)
        for stage in attack.stages(target).values():
            standing = robust.nonzero().squeeze(1)
            if not len(standing):
                break
            candidates = stage(x[standing], y[standing], 0)
            with torch.no_grad():
                broken = model(candidates).argmax(dim=1) != y[standing]
            adversarial[standing[broken]] = candidates[broken]
            robust[standing[broken]] = False
    return adversarial
