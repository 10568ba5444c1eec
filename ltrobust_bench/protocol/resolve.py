"""How a recipe comes about: the protocol's, a card's laid over it, settings by hand over both.

In between, recipes are nested dictionaries with sgd lifted into ``optimizer``, see
:mod:`ltrobust_bench.protocol.optimiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.numbers import number
from ltrobust_bench.protocol.optimiser import FLAT, Optimizer, flattened, lifted
from ltrobust_bench.protocol.schedule import Schedule
from ltrobust_bench.protocol.spec import AttackSpec, Recipe
from ltrobust_bench.terms import Strict, first_problem

PAPER_EPSILON = 8 / 255
"""The radius that pixel-scale numbers of cards are written for."""
FARTHEST = 4.0
"""Times the evaluation's radius that a training radius or step given by hand may be."""


def _kinds(union: Any) -> dict[str, type[Strict]]:
    """The classes of a union of terms by their ``kind``."""
    members = get_args(get_args(union)[0])
    return {kind: terms for terms in members for kind in get_args(terms.model_fields["kind"].annotation)}


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "optimizer": ("optimizer", _kinds(Optimizer)),
    "lr_schedule": ("schedule", _kinds(Schedule)),
}
"""Settings whose word is a kind: the part of the recipe, and the classes of its terms."""

SWITCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bn_forwards": (("minimal", "official"), ("bn_forwards", "bn_forwards_after", "clean_forward_before")),
    **{name: (tuple(kinds), (part,)) for name, (part, kinds) in KINDS.items()},
}
"""Recipe settings that are given by a word: the words, and the parts of the recipe that each sets together.

``bn_forwards``: the train-mode forwards that the loss needs, or those of the released code (they move the running
statistics). ``optimizer``, ``lr_schedule``: the protocol's terms, where it has that kind, else the usual ones.
"""


@cache
def recipe_settings() -> dict[str, tuple[str, ...]]:
    """Dotted names of the recipe's settings that can be given by hand, and of which words each is a term."""
    parts = {"attack", "epochs", "precision", "model", *(part for _, parts in SWITCHES.values() for part in parts)}
    found: dict[str, tuple[str, ...]] = {name: () for name in Recipe.model_fields if name not in parts}
    found |= dict.fromkeys([*SWITCHES, *(f"attack.{name}" for name in AttackSpec.model_fields)], ())
    for switch, (part, kinds) in KINDS.items():
        for kind, terms in kinds.items():
            for term, field in terms.model_fields.items():
                if term != "kind" and get_origin(field.annotation) is not list:
                    name = term if kind == "sgd" else f"{part}.{term}"
                    found[name] = (*found.get(name, ()), f"{switch}={kind}")
    return found


def lay_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with another's terms over it; terms of another kind replace those that were there."""
    merged = _merged(lifted(base), lifted(over))
    for part, kinds in KINDS.values():
        terms = merged.get(part, {})
        if terms.get("kind") in kinds:
            merged[part] = _with_defaults(kinds[terms["kind"]], terms)
    return merged


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        same_kind = (
            isinstance(old, dict) and isinstance(value, Mapping) and value.get("kind") in (None, old.get("kind"))
        )
        merged[key] = _merged(old, value) if same_kind else value  # type: ignore[arg-type]
    return merged


def _with_defaults(terms: type[Strict], stated: Mapping[str, Any]) -> dict[str, Any]:
    fields = terms.model_fields
    values = {name: field.default for name, field in fields.items() if not field.is_required()} | dict(stated)
    return {name: values[name] for name in [*fields, *values] if name in values}


def scaled(recipe: Mapping[str, Any], epsilon: float) -> dict[str, Any]:
    """A card's recipe with its pixel-scale numbers multiplied by epsilon / (8/255)."""
    result, attack = dict(recipe), dict(recipe.get("attack", {}))
    factor = epsilon / PAPER_EPSILON
    for key in ("epsilon", "step_size"):
        if key in attack and "epsilon" not in str(attack[key]):
            attack[key] = number(attack[key]) * (factor if abs(factor - 1) > 1e-12 else 1.0)
    return result | ({"attack": attack} if attack else {})


def stated(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's terms by dotted name, as files and ``--set`` call them."""
    return dict(_leaves(flattened(recipe)))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def resolve(
    recipe: Mapping[str, Any], protocols: Recipe, theirs: Mapping[str, Any], epsilon: float, by_hand: Mapping[str, Any]
) -> Recipe:
    """A recipe with settings by hand over it, every number a float.

    Args:
        recipe: the track's, as :func:`lay_over` gives it.
        protocols: the protocol's, which words refer to.
        theirs: the authors', which ``bn_forwards=official`` refers to.
        epsilon: the data set's radius, [0,1] pixel scale.
        by_hand: dotted names (``attack.steps``, ``lr``) to values; words come first, whatever their place.

    Raises:
        UsageError: for a name or value that no recipe has, or a term of another kind than the recipe's.
    """
    merged = dict(recipe)
    for name, word in by_hand.items():
        if name in SWITCHES:
            merged |= _by_word(name, word, lay_over(protocols.model_dump(), {}), theirs)
    for name, value in by_hand.items():
        if name not in SWITCHES:
            merged = _with(merged, name, value)
    attack = merged["attack"] = dict(merged["attack"])
    for name in ("epsilon", "step_size"):
        if name in attack:  # terms of no known attack may lack it, and are refused below
            attack[name] = number(attack[name], attack.get("epsilon", epsilon) if name == "step_size" else epsilon)
            if f"attack.{name}" in by_hand:
                _check_scale(f"attack.{name}", attack[name], epsilon)
    try:
        return Recipe.model_validate(flattened(merged))
    except ValidationError as error:
        raise UsageError(f"recipe: {first_problem(error)}") from None


def _check_scale(name: str, value: float, epsilon: float) -> None:
    """Refuse what was probably meant in pixels from 0 to 255, or is far beyond what is evaluated."""
    if value <= FARTHEST * epsilon:
        return
    meant = f"; for {value:g} of 255 write {name}={value:g}/255" if 1 <= value <= 255 else ""
    raise UsageError(
        f"{name}={value:g} is {value / epsilon:.3g} times the radius of the evaluation, {epsilon:.4g} on the [0, 1] "
        f"pixel scale; at most {FARTHEST:g} times are taken{meant}."
    )


def _by_word(name: str, word: Any, protocols: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a recipe that a switch sets."""
    words, parts = SWITCHES[name]
    if word not in words:
        raise UnknownNameError(f"value of {name}", str(word), words)
    if name not in KINDS:
        return {part: (theirs if word == "official" else {}).get(part, protocols[part]) for part in parts}
    part, kinds = KINDS[name]
    own = protocols[part]
    return {part: own if own["kind"] == word else _with_defaults(kinds[word], {"kind": word, **kinds[word].usual})}


def _with(recipe: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The recipe with one more setting by hand."""
    *path, leaf = (f"optimizer.{name}" if name in FLAT else name).split(".")
    branch = changed = dict(recipe)
    for part in path:
        inner = branch.get(part)
        branch[part] = branch = dict(inner) if isinstance(inner, Mapping) else {}
    if leaf not in branch:
        words = recipe_settings().get(name)
        if not words:
            raise UnknownNameError("recipe setting", name, recipe_settings())
        raise UsageError(
            f"{name} is a term of {' and '.join(words)}, and the recipe has {branch['kind']}: leave it out, or add "
            f"--set {words[0]}."
        )
    branch[leaf] = value
    return changed


def effective_overrides(
    overrides: Mapping[str, Any], recipe_with: Callable[[Mapping[str, Any]], Recipe]
) -> dict[str, Any]:
    """The overrides that change something, as the recipe's own values: writing out a default is no override.

    Args:
        overrides: dotted names to values.
        recipe_with: the recipe under given overrides.
    """
    if not overrides:
        return {}
    words = {name: word for name, word in overrides.items() if name in SWITCHES}
    plain, worded = recipe_with({}), recipe_with(words)
    before, full = stated(worded.model_dump()), stated(recipe_with(overrides).model_dump())
    effective = {}
    for name in overrides:
        if name in SWITCHES:
            if any(getattr(worded, part) != getattr(plain, part) for part in SWITCHES[name][1]):
                effective[name] = overrides[name]
        elif full[name] != before[name]:
            effective[name] = full[name]
    return effective


def share_of(budget: float, epochs: int) -> int:
    """``budget`` of ``epochs``, in whole epochs; at least one unless it is nothing."""
    return max(1, round(budget * epochs)) if budget else 0
