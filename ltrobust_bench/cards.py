"""Method cards: what a defense is, which options it has, which recipe its authors used. No torch here.

A card is ``card.toml`` beside the ``method.py`` it describes. The registry reads cards only; ``method.py`` is
imported when a method is used, and ``ltbench check`` proves that the two agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.protocol.optimiser import lifted
from ltrobust_bench.protocol.resolve import KINDS, lay_over, resolve, scaled, share_of, stated
from ltrobust_bench.protocol.spec import Protocol, Recipe, Track
from ltrobust_bench.reading import read_toml
from ltrobust_bench.registry import Registration, Registry, installed
from ltrobust_bench.terms import Strict, first_problem

Value = bool | int | float | str | None
Evidence = Literal["printed", "digitized", "second-hand"]
"""How a published number is known: printed by the authors, measured in their figure, or copied by someone else."""
_TYPES: dict[str, type] = {"float": float, "int": int, "str": str, "bool": bool}
SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
METHODS_OF_OTHERS = "ltrobust_bench.methods"
"""Entry points of other packages; each names the package that holds a method's ``card.toml`` and ``method.py``."""


class Option(Strict):
    """One typed option of a method.

    ``fixed`` and ``paper`` are the defaults of the two tracks; an option without them defaults to nothing
    (``None``), which its help explains. ``only_with`` and ``not_with`` say beside which values of other options it
    changes something: ``only_with = { host = ["trades"] }``, ``not_with = { margin = [0] }`` (``"none"``: nothing).
    """

    type: Literal["float", "int", "str", "bool"]
    help: str
    fixed: Value = None
    paper: Value = None
    choices: list[Value] | None = None
    minimum: float | None = None
    maximum: float | None = None
    only_with: dict[str, list[Value]] = Field(default={}, description="values of others without which it does nothing")
    not_with: dict[str, list[Value]] = Field(default={}, description="values of others with which it does nothing")

    @property
    def terms(self) -> list[str]:
        """``only_with`` and ``not_with`` in words; empty where it always changes something."""
        return [
            f"{word} {_assigned(name, values)}"
            for word, others in (("only with", self.only_with), ("not with", self.not_with))
            for name, values in others.items()
        ]

    def parse(self, name: str, value: Any) -> Value:
        """``value`` (a string from the command line, or a Python value) as this option's type.

        Raises:
            UsageError: if it cannot be read as the type, or is out of range.
        """
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            if self.fixed is None or self.paper is None:
                return None
            raise UsageError(f"option {name} cannot be none; it is a {self.type}.")
        try:
            if self.type == "bool" and isinstance(value, str):
                value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
            if isinstance(value, bool) != (self.type == "bool"):
                raise TypeError
            parsed = _TYPES[self.type](value)
            if self.type in ("float", "int") and not (math.isfinite(parsed) and parsed == float(value)):
                raise ValueError
        except (ValueError, TypeError, KeyError, OverflowError):
            raise UsageError(f"option {name} is a {self.type}, got {value!r}.") from None
        if self.choices is not None and parsed not in self.choices:
            raise UsageError(f"option {name} must be one of {', '.join(map(str, self.choices))}, got {value!r}.")
        if self.type in ("float", "int"):
            if self.minimum is not None and parsed < self.minimum:
                raise UsageError(f"option {name} must be at least {self.minimum:g}, got {value!r}.")
            if self.maximum is not None and parsed > self.maximum:
                raise UsageError(f"option {name} must be at most {self.maximum:g}, got {value!r}.")
        return parsed


def _assigned(name: str, values: Iterable[Value]) -> str:
    """An option and values for it, as ``--set`` takes them."""
    written = {None: "none", True: "true", False: "false"}
    texts = (written[v] if v is None or isinstance(v, bool) else str(v) for v in values)
    return f"{name}={' or '.join(texts)}"


class Paper(Strict):
    """Where a method comes from."""

    title: str
    authors: str
    venue: str
    year: int
    arxiv: str | None = None
    url: str | None = None
    code: str | None = None
    bibtex: str


class Claim(Strict):
    """A number that was published for a method; shown beside ours, never ranked."""

    dataset: str
    imbalance_ratio: float | None = Field(default=None, ge=1, description="none: not stated")
    model: str | None = Field(default=None, description="none: not stated")
    metric: str
    value: float = Field(description="per cent, or points where the metric is a gain")
    kind: Evidence
    of: str | None = Field(default=None, description="which form of the method, if it is not the plain one")
    source: str
    note: str = ""


class Base(Strict):
    """The finished run that a method builds on: of another method, with the same data, network, seed and plug-ins, and
    with its own options and recipe.

    ``start``: training begins with its weights. ``teacher``: it stays as it is and the loss may ask for its logits.
    """

    method: str
    role: Literal["start", "teacher"]
    budget: float = Field(default=1.0, gt=0, le=1, description="share of the protocol's budget it is trained for")

    @property
    def terms(self) -> str:
        """How that run is trained, in a sentence."""
        share = "the whole budget" if self.budget == 1 else f"{self.budget:.0%} of the budget"
        return (
            f"It has the same data, network, seed and plug-ins (these are around both trainings), and options and "
            f"recipe of its own: {share} in track fixed, its authors' in track paper."
        )


MOST_EXTRA = 0.1
"""What a fine-tuning may spend on top of the run it starts from, as a share of the budget."""


class Card(Strict):
    """Everything about a method that can be said without running it."""

    slug: str = Field(pattern=SLUG)
    title: str
    summary: str
    group: str
    kind: Literal["method", "plugin"] = "method"
    order: int = Field(default=0, description="plug-ins apply in this order, whatever the command line says")
    conflicts: list[str] = Field(default=[], description="slugs of plug-ins and methods it cannot be combined with")
    raises_epsilon: bool = Field(default=False, description="trains with radii above the evaluation's")
    crafts: bool = Field(default=True, description="whether it attacks images in training")
    needs_attack: bool = Field(default=False, description="a plug-in that does nothing around what does not attack")
    version: int = Field(ge=1)
    base: Base | None = Field(default=None, description="the finished run it builds on")
    budget: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the protocol's budget (track fixed); 0: nothing is trained",
    )
    ranked: bool = Field(default=True, description="whether it takes part in the ranking")
    trials: int = Field(
        default=0,
        ge=0,
        description="settings that were tried on held-out images of a board before the defaults were fixed",
    )
    licence_note: str
    paper: Paper
    options: dict[str, Option] = {}
    recipe: dict[str, Any] = Field(default={}, description="the authors' recipe over the protocol's (track paper)")
    recipe_from: str | None = Field(
        default=None, description="slug of the method whose recipe this one's is, with `recipe` laid over it"
    )
    recipe_source: str
    claims: list[Claim] = Field(default=[], description="published numbers")
    claims_note: str = Field(default="", description="why there are no published numbers")
    deviations: list[str] = []
    quirks: list[str] = []

    @model_validator(mode="after")
    def _defaults_fit_their_types(self) -> Card:
        for name, option in self.options.items():
            for track in ("fixed", "paper"):
                try:
                    option.parse(name, getattr(option, track))
                except UsageError as error:
                    raise ValueError(f"{track} default: {error}") from None
        return self

    @model_validator(mode="after")
    def _options_know_each_other(self) -> Card:
        for name, option in self.options.items():
            for others in (option.only_with, option.not_with):
                for other, values in others.items():
                    if other not in self.options or other == name:
                        raise ValueError(f"options.{name}: {other!r} is no other option")
                    try:
                        others[other] = [self.options[other].parse(other, value) for value in values]
                    except UsageError as error:
                        raise ValueError(f"options.{name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _recipe_has_its_tables(self) -> Card:
        recipe = lifted(self.recipe)
        for part in ("attack", *(part for part, _ in KINDS.values())):
            table = recipe.get(part, {})
            if not isinstance(table, dict) or not isinstance(table.get("kind", ""), str):
                raise ValueError(f"recipe.{part}: must be a table of terms")
        return self

    @model_validator(mode="after")
    def _budget_is_fair(self) -> Card:
        most = 1.0 if self.base is None or self.base.role == "teacher" else 1.0 + MOST_EXTRA
        spent = self.budget + (self.base.budget if self.base else 0.0)
        if spent > most + 1e-9:
            raise ValueError(f"budget and base.budget are {spent:g} of the protocol's together; at most {most:g}")
        if self.budget == 0 and self.base is None:
            raise ValueError("budget 0 needs a base: nothing would be trained")
        return self

    def resolve_options(self, track: Track, given: Mapping[str, Any]) -> dict[str, Value]:
        """The track's defaults with ``given`` over them.

        Raises:
            UnknownNameError: for an option that the card does not have.
            UsageError: for a value that does not fit.
        """
        # Defaults are parsed too, so that a card's 6 and a user's 6.0 are the same value and the same run key.
        resolved = {name: option.parse(name, getattr(option, track)) for name, option in self.options.items()}
        for name, value in given.items():
            if name not in self.options:
                raise UnknownNameError(f"option of {self.slug}", name, self.options)
            resolved[name] = self.options[name].parse(name, value)
        return resolved

    def refuse_idle(self, track: Track, options: Mapping[str, Value]) -> None:
        """Refuse what somebody chose and what would change nothing.

        Args:
            options: all of them, as :meth:`resolve_options` gives them.

        Raises:
            UsageError: for an option that is not at its default beside a value of another that switches it off.
        """
        usual = self.resolve_options(track, {})
        for name, value in options.items():
            if value != usual[name] and (beside := self.idle(name, options)) is not None:
                wanted = self.options[name].only_with.get(beside)
                other = _assigned(beside, wanted) if wanted else f"another {beside}"
                raise UsageError(
                    f"{self.slug}: {_assigned(name, [value])} has no effect with "
                    f"{_assigned(beside, [options[beside]])}; leave it out, or choose {other}."
                )

    def idle(self, name: str, options: Mapping[str, Value]) -> str | None:
        """The option beside whose value the option ``name`` changes nothing; None: it may change something.

        Args:
            options: all of the card's, with the values that they have.
        """
        own = self.options[name]
        without = (other for other, values in own.only_with.items() if options[other] not in values)
        beside = (other for other, values in own.not_with.items() if options[other] in values)
        return next(chain(without, beside), None)

    def paper_recipe(self) -> dict[str, Any]:
        """The authors' recipe over the protocol's, with what is taken from another card."""
        if self.recipe_from is None:
            return self.recipe
        return lay_over(methods.get(self.recipe_from).card.paper_recipe(), self.recipe)

    def stated_recipe(self, protocol: Protocol, track: Track) -> dict[str, Any]:
        """The recipe of a track as it is written, ``"8/255"`` and ``"epsilon/4"`` included, by dotted name."""
        return stated(self._recipe(protocol, track, self.paper_recipe()))

    def _recipe(self, protocol: Protocol, track: Track, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """The protocol's recipe with the card's share of its budget, or with the authors' over it."""
        over = theirs if track == "paper" else {"epochs": share_of(self.budget, protocol.training.epochs)}
        return lay_over(protocol.training.model_dump(), over)

    def resolve_recipe(
        self, protocol: Protocol, track: Track, epsilon: float, overrides: Mapping[str, Any] | None = None
    ) -> Recipe:
        """The recipe a run follows, every number a float.

        Track ``fixed`` is the protocol's, with the card's share of its budget. Track ``paper`` lays the card's recipe
        over it; its pixel-scale numbers are meant for epsilon 8/255 in Linf and are multiplied by the data set's
        epsilon over 8/255, in L2, too: step and radius keep their ratio.

        Args:
            epsilon: the data set's radius, [0,1] pixel scale.
            overrides: dotted names (``attack.steps``, ``lr``) to values, over everything else.

        Raises:
            UsageError: for a name or value that no recipe has.
        """
        theirs = scaled(self.paper_recipe(), epsilon)
        recipe = self._recipe(protocol, track, theirs)
        return resolve(recipe, protocol.training, theirs, epsilon, overrides or {})


def read_card(path: Path) -> Card:
    """The card in a file.

    Raises:
        UsageError: if the file is missing or no valid card; the message names the field.
    """
    try:
        return Card.model_validate(read_toml(path))
    except FileNotFoundError:
        raise UsageError(f"no card at {path}; a method folder needs card.toml and method.py.") from None
    except (OSError, ValueError) as error:  # of the file, of its TOML, or of its terms
        raise UsageError(f"{path} is not a valid card: {first_problem(error)}") from None


class MethodEntry:
    """A method or plug-in in its registry: its card now, its parts when asked for."""

    def __init__(self, card: Card, module: str, origin: str) -> None:
        self.card, self.module, self.origin = card, module, origin

    @property
    def folder(self) -> Path:
        """Where its code lies: its own folder; of somebody else's package the whole package, of which it may use any
        part."""
        ours = self.module.startswith("ltrobust_bench.baselines.")
        found = find_spec(self.module.rpartition(".")[0] if ours else self.module.partition(".")[0])
        folder = next(iter(found.submodule_search_locations or ()), None) if found else None
        if folder is None:
            raise UsageError(f"{self.card.kind} {self.card.slug}: its package is gone; install it again.")
        return Path(folder).resolve()

    def factory(self) -> Callable[..., Any]:
        """The function ``method(options, data) -> Method``, or ``plugin(options, data) -> Plugin``, of its
        ``method.py`` (imports torch)."""
        return getattr(import_module(self.module), self.card.kind)


def _scan(kind: str) -> list[Registration]:
    from ltrobust_bench import baselines

    entries = []
    for folder in sorted({p for root in baselines.__path__ for p in Path(root).iterdir()}):
        if not (folder / "card.toml").is_file():
            continue
        card = read_card(folder / "card.toml")
        if card.kind != kind:
            continue
        if card.slug.replace("-", "_") != folder.name:
            raise UsageError(f"{folder / 'card.toml'} says slug {card.slug!r} but lies in folder {folder.name!r}.")
        module = f"ltrobust_bench.baselines.{folder.name}.method"
        origin = f"baselines/{folder.name}/card.toml"
        entries.append(Registration(card.slug, MethodEntry(card, module, origin), card.title, origin, card.group))
    return entries


def _of_others(kind: str) -> list[Registration]:
    """Methods or plug-ins of other packages. Only their cards are read, nothing of theirs is imported but the packages
    around them."""
    entries = []
    for entry in installed(METHODS_OF_OTHERS):
        try:
            found = find_spec(entry.target)
            folder = Path(next(iter(found.submodule_search_locations or ()))) if found else None
        except Exception:  # noqa: BLE001 - a stranger's package may raise anything, and may be none
            folder = None
        if folder is None:
            raise UsageError(
                f"method {entry.name!r} of {entry.origin}: there is no such package; the entry point must name the one "
                f"that holds card.toml and method.py. Repair it or uninstall it."
            )
        card = read_card(folder / "card.toml")
        if card.slug != entry.name:
            raise UsageError(f"{folder / 'card.toml'} says slug {card.slug!r}, its entry point says {entry.name!r}.")
        if card.kind == kind:
            method = MethodEntry(card, f"{entry.target}.method", entry.origin)
            entries.append(replace(entry, target=method, help=card.title))
    return entries


methods: Registry[MethodEntry] = Registry("method", discover=lambda: _scan("method") + _of_others("method"))
plugins: Registry[MethodEntry] = Registry("plug-in", discover=lambda: _scan("plugin") + _of_others("plugin"))


def card_of(slug: str) -> Card:
    """The card of a method or plug-in.

    Raises:
        UnknownNameError: with the nearest methods.
    """
    return (plugins if slug in plugins else methods).get(slug).card
