"""From what a user asks for to everything a run fixes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ltrobust_bench.cards import Card, methods, plugins
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.models.registry import models
from ltrobust_bench.plan.run import Augmentation, Policy, RunSection
from ltrobust_bench.plan.task import Task, make_task
from ltrobust_bench.protocol import Track
from ltrobust_bench.protocol.resolve import effective_overrides, recipe_settings, share_of
from ltrobust_bench.protocol.spec import Precision
from ltrobust_bench.terms import first_problem

LARGE_IMAGE = 32


@dataclass(frozen=True)
class Plan:
    """A run, before it happens."""

    run: RunSection
    card: Card
    task: Task
    base: Plan | None = None
    """The run it builds on; it is finished first."""

    @property
    def train_size(self) -> int:
        """Training images N."""
        return sum(self.run.train_counts)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return self.run.steps_per_epoch

    @property
    def budget(self) -> int:
        """Optimiser steps in all."""
        return self.steps_per_epoch * self.run.recipe.epochs


def make_plan(
    method: str,
    dataset: str,
    *,
    protocol: str | None = None,
    track: str = "fixed",
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    model: str | None = None,
    plugin_names: Sequence[str] = (),
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    data_dir: Path | None = None,
    budget: float | None = None,
    precision: Precision | None = None,
    policy: Policy | None = None,
) -> Plan:
    """Everything a run fixes, with the protocol's and the card's values where nothing is given.

    Args:
        method, dataset, protocol, model: names in the registries.
        track: ``fixed`` (one budget for all) or ``paper`` (the authors' recipe).
        imbalance_ratio: largest over smallest class.
        profile: ``exp``, ``step``, ``balanced`` or ``own``.
        plugin_names: plug-ins around the method; they apply in the order of their cards.
        seed: of training; split and evaluation do not depend on it.
        settings: method options (``tail=off``) and recipe settings (``attack.steps=5``) by name.
        epochs: a budget other than the recipe's; makes a reduced run.
        limit_train, limit_test: first limit // C images of each class; makes a reduced run.
        data_dir: folder or archive of the data set.
        budget: share of the protocol's budget instead of the card's, for a run that another builds on.
        precision: ``fp32`` or ``bf16``, where it is to differ from the protocol's.
        policy: how the arithmetic is carried out; default: the reference path.

    Raises:
        UsageError: for anything unknown or impossible.
        DataError: for missing or damaged data.
    """
    if method in plugins:
        raise UsageError(f"{method} is a plug-in: write --method at --plugin {method}, or another host.")
    card = methods.get(method).card
    if budget is not None:
        card = card.model_copy(update={"budget": budget})
    if track not in ("fixed", "paper"):
        raise UnknownNameError("track", track, ["fixed", "paper"])
    if epochs is not None and epochs < 1:
        raise UsageError(f"a budget of {epochs} epochs trains nothing; use 1 or more.")
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed must be between 0 and {2**31 - 1}, got {seed}.")
    wrapped = plugin_cards(method, plugin_names)
    given, overrides = _sort_settings(card, wrapped, settings or {})
    overrides |= {"precision": precision} if precision else {}
    policy = policy or Policy()
    if precision == "bf16" and policy.crafting == "winograd":
        raise UsageError("Winograd's method computes in float32: with bf16 craft on the network or the folded copy.")
    options = card.resolve_options(cast(Track, track), given[""])
    for wrapper in wrapped:
        resolved = wrapper.resolve_options(cast(Track, track), given[wrapper.slug])
        options |= {f"{wrapper.slug}.{name}": value for name, value in resolved.items()}
    if model is not None:
        models.entry(model)
    task = make_task(
        dataset,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        limit_train=limit_train,
        limit_test=limit_test,
        data_dir=data_dir,
    )
    task.source.places(task.split.train)  # an archive may hold another split: say so before anything is computed
    recipe_with = partial(card.resolve_recipe, task.protocol, cast(Track, track), task.epsilon)
    recipe, overrides = recipe_with(overrides), effective_overrides(overrides, recipe_with)
    if recipe.epochs == 0 and overrides:
        raise UsageError(f"{method} trains nothing, so {', '.join(overrides)} would change nothing; leave it out.")
    if epochs is not None and recipe.epochs:
        recipe = recipe.model_copy(update={"epochs": share_of(card.budget, epochs)})
    base = None
    if card.base is not None:
        # What it builds on is the same for every method: its own recipe and options, with the same plug-ins.
        base = make_plan(
            card.base.method,
            dataset,
            protocol=protocol,
            track=track,
            imbalance_ratio=imbalance_ratio,
            profile=profile,
            model=model,
            plugin_names=plugin_names,
            seed=seed,
            settings={f"{slug}.{k}": v for slug, own in given.items() if slug for k, v in own.items()},
            epochs=epochs,
            limit_train=limit_train,
            limit_test=limit_test,
            data_dir=data_dir,
            budget=card.base.budget,
            precision=precision,
            policy=policy,
        )
        model = base.run.model
    if model is None:
        # The authors' networks are for 32x32 images; smaller ones keep the protocol's network in both tracks.
        theirs = recipe.model if task.spec.shape[-1] >= LARGE_IMAGE else None
        model = theirs or task.terms.model
    try:
        run = RunSection(
            protocol=task.protocol.name,
            protocol_digest=task.protocol.digest(task.spec.name),
            track=cast(Track, track),
            dataset=task.spec.name,
            imbalance_ratio=task.imbalance_ratio,
            profile=task.profile,  # type: ignore[arg-type]
            train_counts=task.split.train_counts,
            test_counts=task.split.test_counts,
            train_index_sha256=task.split.train_sha256,
            test_index_sha256=task.split.test_sha256,
            method=method,
            card_version=card.version,
            options=options,
            plugins=[wrapper.slug for wrapper in wrapped],
            model=model,
            seed=seed,
            threat_model=task.protocol.threat_model,
            epsilon=task.epsilon,
            recipe=recipe,
            augmentation=Augmentation(crop_padding=task.terms.crop_padding, flip=task.terms.flip),
            limit_train=limit_train,
            limit_test=limit_test,
            epochs=epochs,
            overrides=overrides,
            source_sha256=task.source.sha256,
            base_key=base.run.key() if base else None,
            policy=policy,
        )
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
    return Plan(run, card, task, base)


def plugin_cards(method: str, names: Sequence[str]) -> list[Card]:
    """The cards of plug-ins in their declared order.

    Raises:
        UnknownNameError: for an unknown plug-in.
        UsageError: for one named twice, or a combination that a card rules out.
    """
    found = [plugins.get(name).card for name in names]
    if len(set(names)) < len(names):
        raise UsageError(f"a plug-in is named twice: {', '.join(names)}.")
    for card in found:
        for other in (method, *names):
            if other in card.conflicts:
                raise UsageError(f"plug-in {card.slug} cannot be combined with {other}, as its card says.")
    return sorted(found, key=lambda card: (card.order, card.slug))


def _sort_settings(
    card: Card, wrapped: Sequence[Card], settings: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Settings of the method (under "") and of each plug-in, and of the recipe (typed as Python literals)."""
    owners = {name: ("", name) for name in card.options}
    for wrapper in wrapped:
        owners |= {f"{wrapper.slug}.{name}": (wrapper.slug, name) for name in wrapper.options}
    options: dict[str, dict[str, Any]] = {"": {}, **{wrapper.slug: {} for wrapper in wrapped}}
    overrides, recipe_names = {}, recipe_settings()
    for name, value in settings.items():
        if name in owners:
            owner, own_name = owners[name]
            options[owner][own_name] = value
        elif name in recipe_names:
            overrides[name] = _literal(value)
        else:
            hint = f"`ltbench show {card.slug}` lists them."
            raise UnknownNameError("setting", name, [*owners, *recipe_names], hint)
    return options, overrides


def _literal(value: Any) -> Any:
    """A command-line string as bool, int or float where it reads as one."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
