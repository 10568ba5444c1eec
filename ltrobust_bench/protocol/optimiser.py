"""Optimisers as terms of a recipe: what each is told, and how torch's is made. Importing this does not import torch.

Another one is a class here (a ``kind``, its terms, ``usual``, ``build``) and its name in :data:`Optimizer`; then
files may state it, and ``--set optimizer=KIND`` and ``--set optimizer.TERM=VALUE`` work.

**In files the terms of sgd stand in the recipe itself**, as they did before there were others::

    momentum = 0.9                                  # sgd
    nesterov = false
    optimizer = { kind = "adamw", beta2 = 0.95 }    # any other

:func:`lifted` and :func:`flattened` are the two directions, and nothing else knows of it. By hand they are likewise
``momentum`` and ``nesterov``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ltrobust_bench.terms import Strict

if TYPE_CHECKING:
    import torch


class Sgd(Strict):
    """Stochastic gradient descent; the weight decay is part of the gradient."""

    kind: Literal["sgd"]
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool

    usual: ClassVar[dict[str, Any]] = {"momentum": 0.9, "nesterov": False}

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, parameters: Iterable[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Torch's optimiser of these parameters, or of its groups of them."""
        from torch.optim import SGD

        return SGD(parameters, lr=lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=weight_decay)


class Adam(Strict):
    """Adam (Kingma & Ba, ICLR 2015), in which the weight decay is part of the gradient, and AdamW (Loshchilov & Hutter,
    ICLR 2019), in which weights shrink by lr * weight_decay a step instead."""

    kind: Literal["adam", "adamw"]
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the running mean of the gradient")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the running mean of its square")
    eps: float = Field(default=1e-8, gt=0, description="added to the root of the latter")

    usual: ClassVar[dict[str, Any]] = {}

    def build(self, parameters: Iterable[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Torch's optimiser of these parameters, or of its groups of them."""
        from torch import optim

        make = optim.AdamW if self.kind == "adamw" else optim.Adam
        return make(parameters, lr=lr, betas=(self.beta1, self.beta2), eps=self.eps, weight_decay=weight_decay)


Optimizer = Annotated[Sgd | Adam, Field(discriminator="kind")]

FLAT = ("momentum", "nesterov")
"""The terms of sgd, which files state in the recipe itself."""


def lifted(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as files state it, with the terms of sgd moved into ``optimizer``.

    Raises:
        ValueError: if it states terms of sgd and an optimiser.
    """
    terms = {name: recipe[name] for name in FLAT if name in recipe}
    if terms and "optimizer" in recipe:
        raise ValueError(f"{next(iter(terms))}: is a term of sgd, and the recipe states another optimizer")
    # The first of the terms gives its place, so that recipes are shown in the order in which they are written.
    renamed = {"optimizer" if name in FLAT else name: value for name, value in recipe.items()}
    return renamed | ({"optimizer": {"kind": "sgd", **terms}} if terms else {})


def flattened(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as files state it: the terms of sgd in the place of ``optimizer``."""
    written: dict[str, Any] = {}
    for name, value in recipe.items():
        if name == "optimizer" and value["kind"] == "sgd":
            written |= {term: of for term, of in value.items() if term != "kind"}
        else:
            written[name] = value
    return written
