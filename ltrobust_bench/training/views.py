"""What a method sees of a step: what :mod:`ltrobust_bench.api` promises, read-only, and nothing else.

Python hides nothing from somebody who searches. These classes are for honest authors: a name that is not in the
contract is refused in one line when it is asked for, and ``ltbench check`` refuses code that names the one way behind
a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from ltrobust_bench.api import Network, Output
from ltrobust_bench.errors import ContractError, UsageError
from ltrobust_bench.terms import BNMode

if TYPE_CHECKING:
    from ltrobust_bench.training.step import Step


BEHIND = "_behind"
"""The attribute that no method may name."""


class View:
    """Refuses every name that a subclass does not have.

    Raises:
        ContractError: when such a name is read, or any is written.
    """

    __slots__ = (BEHIND,)
    what = "this part of the contract"

    def __init__(self, step: Step) -> None:
        object.__setattr__(self, BEHIND, step)

    def __getattr__(self, name: str) -> NoReturn:
        names = ", ".join(n for n in dir(type(self)) if n[0] != "_" and n != "what")
        raise ContractError(f"{self.what} has no {name!r}: a method may ask it for {names} (ltrobust_bench/api.py).")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise ContractError(f"{name!r} of {self.what} cannot be set: a method only reads (ltrobust_bench/api.py).")


class OutputsView(View):
    """A step as :class:`ltrobust_bench.api.Outputs`."""

    __slots__ = ()
    what = "`outputs`"
    _behind: Step

    @property
    def x(self) -> Tensor:
        """The clean batch."""
        return self._behind.x

    @property
    def x_adv(self) -> Tensor:
        """The crafted batch."""
        return self._behind.x_adv

    @property
    def clean(self) -> Output:
        """Train-mode forward of the clean batch."""
        return self._behind.clean

    @property
    def adversarial(self) -> Output:
        """Train-mode forward of the adversarial batch."""
        return self._behind.adversarial

    def of(self, images: Tensor, mode: BNMode = "train") -> Output:
        """A forward of any images."""
        return self._behind.of(images, mode)

    def companion(self, images: Tensor) -> Output:
        """A forward of any images through the companion."""
        return self._behind.companion(images)

    def after_update(self) -> Output:
        """Train-mode forward of the adversarial batch after the update."""
        return self._behind.after_update()


class ContextView(View):
    """A step as :class:`ltrobust_bench.api.StepContext`."""

    __slots__ = ()
    what = "`ctx`"
    _behind: Step

    @property
    def epoch(self) -> int:
        """1-based."""
        return self._behind.epoch

    @property
    def epochs(self) -> int:
        """Length of the budget."""
        return self._behind.epochs

    @property
    def partners(self) -> tuple[Tensor, Tensor]:
        """Images and labels that were drawn beside the batch's."""
        if self._behind.partners is None:
            # No AttributeError, after which Python would ask __getattr__.
            raise UsageError(f"{self.what} has no partners: they are there where a sampler draws pairs, [2, draws].")
        return self._behind.partners

    def natural_logits(self) -> Tensor:
        """Logits of the clean batch in the mode of crafting, detached."""
        return self._behind.natural_logits()

    def teacher_logits(self) -> Tensor:
        """The teacher's logits of the adversarial batch, detached."""
        return self._behind.teacher_logits()


class PluginView(ContextView):
    """A step as :class:`ltrobust_bench.api.PluginStep`."""

    __slots__ = ()
    what = "`step`"

    @property
    def x(self) -> Tensor:
        """The images."""
        return self._behind.x

    @property
    def y(self) -> Tensor:
        """Their labels."""
        return self._behind.y

    @property
    def network(self) -> Network:
        """The network that is trained."""
        return self._behind.trainee.network

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its optimiser."""
        return self._behind.trainee.optimizer

    def fresh_loss(self) -> Tensor:
        """The host's outer loss through the network as it is now."""
        return self._behind.fresh_loss()
