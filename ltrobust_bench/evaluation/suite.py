"""A protocol's attacks as stages: functions that are run, batch by batch, on the images still standing.

A simple attack is one stage; the logit-scaled attack is one stage per scale; AutoAttack is its four attacks. Each
batch's randomness is seeded by attack, stage and position, so that an evaluation can stop and go on anywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.attacks import attacks as registered
from ltrobust_bench.attacks import auto
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.numbers import number
from ltrobust_bench.protocol import EvalAttack
from ltrobust_bench.randomness import seeded

StageFunction = Callable[[Tensor, Tensor, int], Tensor]
"""(x [B, ...], y [B], position of the batch in the stage) -> adversarial images."""


@dataclass(frozen=True)
class SuiteAttack:
    """One attack: its name in the record, and its stages in order."""

    name: str
    stages: dict[str, StageFunction]


SINGLE = [
    EvalAttack(name="apgd-ce", kind="apgd-ce", steps=100, restarts=1, rho=0.75),
    EvalAttack(name="apgd-dlr", kind="apgd-dlr", steps=100, restarts=1, rho=0.75),
    EvalAttack(name="apgd-t", kind="apgd-t", steps=100, restarts=1, rho=0.75, targets=9),
    EvalAttack(name="fab-t", kind="fab-t", steps=100, restarts=1, targets=9),
    EvalAttack(name="square", kind="square", restarts=1, queries=5000, p_init=0.8),
]
"""Attacks that users may ask for beside a protocol's: AutoAttack's own, each alone, as in its standard version."""
TRANSFER = EvalAttack(name="transfer", kind="transfer", steps=20, step_size="epsilon/4", start="uniform", restarts=1)
"""PGD-20 on a second model."""


def build_attack(
    spec: EvalAttack,
    model: nn.Module,
    *,
    classes: int,
    epsilon: float,
    seed: int,
    device: torch.device,
    surrogate: nn.Module | None = None,
) -> SuiteAttack:
    """The stages of one attack of a protocol.

    Args:
        spec: the attack, every argument stated.
        model: pixels to logits, in eval mode.
        classes: C.
        epsilon: Linf radius, [0, 1] pixel scale.
        seed: of the evaluation.
        device: where the images are.
        surrogate: the second model, for attacks of kind ``transfer``.
    """
    if spec.kind in {single.kind for single in SINGLE}:
        stated = spec.model_dump(exclude={"name", "kind"}, exclude_none=True)
        alone = auto.single(spec.kind, model, classes, epsilon=epsilon, seed=seed, device=device, **stated)
        return SuiteAttack(spec.name, {spec.kind: _ignoring_position(alone)})
    if spec.kind == "autoattack":
        official = auto.stages(
            model,
            classes,
            epsilon=epsilon,
            steps=int(spec.steps or 0),
            restarts=int(spec.restarts or 0),
            targets=int(spec.targets or 0),
            queries=int(spec.queries or 0),
            p_init=float(spec.p_init or 0),
            rho=float(spec.rho or 0),
            seed=seed,
            device=device,
        )
        return SuiteAttack(
            auto.suite_name(classes) if spec.name == "autoattack" else spec.name,
            {name: _ignoring_position(function) for name, function in official.items()},
        )
    settings: dict[str, Any] = {"epsilon": epsilon, "step_size": number(spec.step_size or 0, epsilon)}
    settings |= {"start": spec.start}
    if spec.kind != "fgsm":
        settings |= {"steps": spec.steps, "restarts": spec.restarts}
    if spec.kind == "scaled-pgd":
        variants: dict[str, dict[str, Any]] = {f"alpha={a:g}": {"alphas": [a]} for a in spec.alphas or []}
    elif spec.kind == "transfer":
        assert surrogate is not None, "transfer needs a second model"
        variants = {"transfer": {"surrogate": Splitting(surrogate)}}
    else:
        extra: dict[str, Any] = {k: v for k, v in (("decay", spec.decay), ("kappa", spec.kappa)) if v is not None}
        variants = {spec.kind: extra}
    function = registered.get(spec.kind)

    def stage(name: str, own: dict[str, Any]) -> StageFunction:
        def run(x: Tensor, y: Tensor, position: int) -> Tensor:
            generator = seeded(seed, f"{spec.name}/{name}", position, device)
            return function(model, x, y, generator=generator, **settings, **own)

        climbed = own.get("surrogate")
        if climbed is None:
            return run  # on the model itself, whose caller splits it where it does not fit
        return lambda x, y, position: climbed.fit(lambda: run(x, y, position), len(x))

    return SuiteAttack(spec.name, {name: stage(name, own) for name, own in variants.items()})


def _ignoring_position(function: Callable[[Tensor, Tensor], Tensor]) -> StageFunction:
    """The official attacks seed themselves, the same way for each batch. Their warnings, one per batch, are what the
    reliability report measures."""

    def run(x: Tensor, y: Tensor, position: int) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pyautoattack")
            return function(x, y)

    return run
