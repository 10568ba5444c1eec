"""From a request to everything that a run fixes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltrobust_bench.cards import Card, Value, methods, plugins
from ltrobust_bench.data.extra import ExtraData, read_extra
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.models.pretrained import find_pretrained
from ltrobust_bench.models.registry import models
from ltrobust_bench.plan.request import Request, takes_request
from ltrobust_bench.plan.run import CUTS, Augmentation, Policy, RunSection
from ltrobust_bench.plan.task import Task
from ltrobust_bench.protocol import DatasetTerms, Recipe
from ltrobust_bench.protocol.resolve import effective_overrides, recipe_settings, share_of
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
    extra: ExtraData | None = None
    """Training images beyond the split's."""
    weights: Path | None = None
    """The file of weights that it starts from."""

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


@takes_request
def make_plan(request: Request, *, data_dir: Path | str | None = None) -> Plan:
    """Everything a run fixes, with the protocol's and the card's values where nothing is given.

    Args:
        request: what is asked for, or its method, data set and other fields.
        data_dir: folder or archive of the data set.

    Raises:
        UsageError: for anything unknown or impossible.
        DataError: for missing or damaged data.
    """
    return _plan(request, data_dir)


def _plan(request: Request, data_dir: Path | str | None, budget: float | None = None) -> Plan:
    """:func:`make_plan`; with a share of the protocol's budget instead of the card's, for a run that another builds
    on."""
    if request.method in plugins:
        raise UsageError(
            f"{request.method} is a plug-in: write --method at --plugin {request.method}, or another host."
        )
    card = methods.get(request.method).card
    wrapped = plugin_cards(request.method, request.plugins)
    if budget is not None:
        card = card.model_copy(update={"budget": budget})
    elif idle := [wrapper.slug for wrapper in wrapped if wrapper.needs_attack and not card.crafts]:
        raise UsageError(
            f"{request.method} trains without an attack, so {' and '.join(idle)} would change nothing; leave it out."
        )
    given, overrides = _sort_settings(card, wrapped, dict(request.settings))
    options = _options(request, card, wrapped, given)
    if request.model is not None:
        models.entry(request.model)
    task = request.task(data_dir)
    task.source.places(task.split.train)  # an archive may hold another split: say so before anything is computed
    extra, place = None, None if data_dir is None else Path(data_dir)
    if request.extra_data is not None:
        if task.source.streams:
            raise UsageError(
                f"--extra-data is for images that memory holds; those of {task.spec.name} are read from files."
            )
        extra = read_extra(request.extra_data, place, task.source, task.spec.shape)
    recipe, overrides = _recipe(request, card, task, overrides)
    model, base = request.model or _stated_model(recipe, task.spec.shape[-1]), None
    if card.base is not None:
        # What it builds on is the same for every method: its own recipe and options, with the same plug-ins.
        settings = {f"{slug}.{k}": v for slug, own in given.items() if slug for k, v in own.items()}
        if card.base.role == "start":  # its weights go on in this run's network, which has to be the same function
            settings["activation"] = recipe.activation
        asked = request.replace(method=card.base.method, settings=settings, model=model)
        base = _plan(asked, data_dir, card.base.budget)
        model = base.run.model
    model = model or task.terms.model
    pretrained, weights = None, None
    if request.pretrained is not None:
        pretrained, weights = find_pretrained(request.pretrained, model, task.spec.shape[0], place)
    try:
        run = RunSection(
            protocol=task.protocol.name,
            protocol_digest=task.protocol.digest(task.spec.name),
            track=request.track,
            dataset=task.spec.name,
            imbalance_ratio=task.imbalance_ratio,
            profile=task.profile,  # type: ignore[arg-type]
            train_counts=task.split.train_counts,
            test_counts=task.split.test_counts,
            train_index_sha256=task.split.train_sha256,
            test_index_sha256=task.split.test_sha256,
            method=request.method,
            card_version=card.version,
            options=options,
            plugins=[wrapper.slug for wrapper in wrapped],
            model=model,
            seed=request.seed,
            threat_model=task.protocol.threat_model,
            epsilon=task.epsilon,
            recipe=recipe,
            augmentation=Augmentation(crop_padding=task.terms.crop_padding, flip=task.terms.flip),
            **{name: getattr(request, name) for name in CUTS},
            overrides=overrides,
            source_sha256=task.source.sha256,
            base_key=base.run.key() if base else None,
            extra=extra.terms if extra else None,
            pretrained=pretrained,
            policy=request.policy or Policy.asked(task.protocol.crafting, False, recipe.precision),
        )
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
    return Plan(run, card, task, base, extra, weights)


def settings_of(request: Request) -> tuple[dict[str, Value], dict[str, Any]]:
    """Every option of a request's method and plug-ins, and what it changes of the recipe, by name; needs no data.

    Raises:
        UsageError: for anything unknown or impossible.
    """
    card, wrapped = methods.get(request.method).card, plugin_cards(request.method, request.plugins)
    given, overrides = _sort_settings(card, wrapped, dict(request.settings))
    return _options(request, card, wrapped, given), overrides


def usual_model(recipe: Recipe, terms: DatasetTerms, size: int) -> str:
    """The network of a run that names none, for images of ``size`` pixels. Authors' networks are for 32x32 images;
    smaller ones keep the protocol's network in both tracks."""
    return _stated_model(recipe, size) or terms.model


def _stated_model(recipe: Recipe, size: int) -> str | None:
    return recipe.model if size >= LARGE_IMAGE else None


def _options(
    request: Request, card: Card, wrapped: Sequence[Card], given: Mapping[str, dict[str, Any]]
) -> dict[str, Value]:
    """Options of the method, and of the plug-ins by ``plug-in.option``."""
    options: dict[str, Value] = {}
    for each, slug in ((card, ""), *((wrapper, wrapper.slug) for wrapper in wrapped)):
        resolved = each.resolve_options(request.track, given[slug])
        each.refuse_idle(request.track, resolved)
        options |= {f"{slug}.{name}" if slug else name: value for name, value in resolved.items()}
    return options


def _recipe(request: Request, card: Card, task: Task, overrides: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe that a run follows, and what of the settings changes it."""
    overrides |= {"precision": request.precision} if request.precision else {}
    recipe_with = partial(card.resolve_recipe, task.protocol, request.track, task.epsilon)
    recipe, overrides = recipe_with(overrides), effective_overrides(overrides, recipe_with)
    if recipe.epochs == 0 and overrides:
        raise UsageError(
            f"{request.method} trains nothing, so {', '.join(overrides)} would change nothing; leave it out."
        )
    attack = [name for name in overrides if name.startswith("attack.")]
    if attack and not card.crafts:
        raise UsageError(
            f"{request.method} trains without an attack, so {', '.join(attack)} would change nothing; leave it out."
        )
    if request.epochs is not None and recipe.epochs:
        recipe = recipe.model_copy(update={"epochs": share_of(card.budget, request.epochs)})
    return recipe, overrides


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
            overrides[name] = literal(value)
        else:
            hint = f"`ltbench show {card.slug}` lists them."
            raise UnknownNameError("setting", name, [*owners, *recipe_names], hint)
    return options, overrides


def literal(value: Any) -> Any:
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
