"""AutoAttack by its authors' code (package pyautoattack), one of its attacks and one batch at a time.

The order, the regrouping of the images still robust and the seeds are those of its
``run_standard_evaluation``, so the verdict is the same; but the caller holds the state, so an evaluation can
be resumed between any two batches (the package's own state file does not survive that).

With 4 to 9 classes there are only C - 1 targets. With 2 or 3 the targeted DLR loss does not exist: its place takes
the targeted margin, and the suite is called ``aa-small-c``, never AutoAttack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.engine import check_input, crafting_mode
from ltrobust_bench.errors import UsageError

StageFunction = Callable[[Tensor, Tensor], Tensor]
STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
SMALLEST_FOR_DLR = 4


def suite_name(classes: int) -> str:
    """``autoattack``, or ``aa-small-c`` where the targeted DLR loss does not exist."""
    return "autoattack" if classes >= SMALLEST_FOR_DLR else "aa-small-c"


def stages(model: nn.Module, classes: int, **settings: Any) -> dict[str, StageFunction]:
    """The attacks in order, functions (x [B, ...], y [B]) -> adversarial images; settings as in :func:`single`."""
    return {name: single(name, model, classes, **settings) for name in STAGES}


def single(
    name: str,
    model: nn.Module,
    classes: int,
    *,
    epsilon: float,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    queries: int = 5000,
    p_init: float = 0.8,
    rho: float = 0.75,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> StageFunction:
    """One of the official attacks, a function (x [B, ...], y [B]) -> adversarial images.

    Args:
        name: ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``fab-t`` or ``square``.
        model: pixels to logits, in eval mode.
        classes: C; at most C - 1 targets are attacked.
        epsilon: Linf radius, [0, 1] pixel scale.
        steps: iterations of APGD and FAB.
        restarts: of every attack.
        targets: target classes of APGD-T and FAB-T.
        queries, p_init: Square.
        rho: APGD's threshold for halving the step.
        seed: every call starts from it, as in the official code.

    Raises:
        UsageError: for fewer classes than the attack needs: 2, and 3 for the DLR loss.
    """
    needed = 3 if name == "apgd-dlr" else 2
    if classes < needed:
        raise UsageError(f"attack {name} needs at least {needed} classes, the model has {classes}.")
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    class TargetedMargin(APGDAttack_targeted):
        """APGD on z_t - z_y, without DLR's division by a difference of the third and fourth logit."""

        def dlr_loss_targeted(self, x: Tensor, y: Tensor) -> Tensor:
            rows = torch.arange(len(x), device=x.device)
            return x[rows, self.y_target] - x[rows, y]

    common = {"norm": "Linf", "eps": epsilon, "seed": seed, "verbose": False, "device": device, "n_restarts": restarts}
    targets = min(targets, classes - 1)
    gradient = {"n_iter": steps, "eot_iter": 1, "rho": rho, **common}
    attack: Any
    if name == "apgd-t":
        targeted = APGDAttack_targeted if classes >= SMALLEST_FOR_DLR else TargetedMargin
        attack = targeted(model, n_target_classes=targets, **gradient)
    elif name == "fab-t":
        attack = FABAttack_PT(model, n_iter=steps, n_target_classes=targets, targeted=True, **common)
    elif name == "square":
        attack = SquareAttack(model, p_init=p_init, n_queries=queries, resc_schedule=False, **common)
    else:
        attack = APGDAttack(model, loss=name.removeprefix("apgd-"), **gradient)

    def run(x: Tensor, y: Tensor) -> Tensor:
        # The official attacks seed torch's global generators, on CUDA that of the current device; nobody else must
        # notice.
        devices = list(range(torch.cuda.device_count())) if x.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            found: Tensor = attack.perturb(x, y)
            return found.detach()

    return run


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator | None = None,
    **settings: float,
) -> Tensor:
    """AutoAttack on one batch: each attack in turn on the images still classified correctly.

    Args:
        model: pixels to logits.
        x: images in [0, 1], shape [B, channels, height, width].
        y: labels, int64, shape [B].
        epsilon: Linf radius, [0, 1] pixel scale.
        generator: unused; the official attacks seed themselves (``settings["seed"]``, default 0).
        **settings: see :func:`stages`.

    Returns:
        Adversarial images where an attack succeeded, ``x`` elsewhere.
    """
    check_input(x, y, epsilon)
    with crafting_mode(model, "eval"):
        with torch.no_grad():
            logits = model(x)
        robust, adversarial = logits.argmax(dim=1) == y, x.clone()
        for attack in stages(model, logits.shape[1], epsilon=epsilon, device=x.device, **settings).values():
            standing = robust.nonzero().squeeze(1)
            if not len(standing):
                break
            candidates = attack(x[standing], y[standing])
            with torch.no_grad():
                broken = model(candidates).argmax(dim=1) != y[standing]
            adversarial[standing[broken]] = candidates[broken]
            robust[standing[broken]] = False
    return adversarial


def apgd_ce(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """APGD on cross-entropy alone; arguments as :func:`autoattack`."""
    return _alone("apgd-ce", model, x, y, **settings)


def apgd_dlr(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """APGD on the difference-of-logits ratio alone; arguments as :func:`autoattack`."""
    return _alone("apgd-dlr", model, x, y, **settings)


def apgd_t(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Targeted APGD alone; arguments as :func:`autoattack`."""
    return _alone("apgd-t", model, x, y, **settings)


def fab_t(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Targeted FAB alone; arguments as :func:`autoattack`."""
    return _alone("fab-t", model, x, y, **settings)


def square(model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    """Square alone, a black-box attack; arguments as :func:`autoattack`."""
    return _alone("square", model, x, y, **settings)


def _alone(
    name: str, model: nn.Module, x: Tensor, y: Tensor, *, epsilon: float, generator: Any = None, **settings: Any
) -> Tensor:
    check_input(x, y, epsilon)
    with crafting_mode(model, "eval"):
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        return single(name, model, classes, epsilon=epsilon, device=x.device, **settings)(x, y)
