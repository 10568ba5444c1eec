"""Which kinds of attacks there are: the files of this folder, each the subclass of ``Attack`` that it defines."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from ltrobust_bench import attacks as package
from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.registry import Registration, Registry, scanned
from ltrobust_bench.terms import first_problem, printable

SHARED = {"__init__", "ball", "engine", "official", "pursuit", "registry", "terms"}
"""Files of the folder that are no kind of attack."""


def _scan() -> list[Registration]:
    found = scanned(package, Attack, SHARED)
    for kind in found:
        if get_args(kind.target.model_fields["kind"].annotation) != (kind.name,):
            raise UsageError(f'{kind.origin}: {kind.target.__name__} must state kind: Literal["{kind.name}"].')
    return found


attacks: Registry[type[Attack]] = Registry("attack", discover=_scan, base=type)


def read_attack(stated: Any) -> Attack:
    """The attack that a protocol states.

    Args:
        stated: a mapping with ``name``, ``kind`` and the kind's arguments; an attack is given back as it is.

    Raises:
        UsageError: naming attack, argument and what is wanted.
    """
    if isinstance(stated, Attack):
        return stated
    if not isinstance(stated, dict) or not isinstance(stated.get("kind"), str):
        raise UsageError(f"an attack states name, kind (known: {', '.join(attacks.names())}) and its arguments.")
    kind = attacks.get(stated["kind"])
    who = f"attack {printable(repr(stated.get('name')))} of kind {kind_name(kind)!r}"
    wanted = kind.model_fields.keys() - {"name", "kind"}
    given = stated.keys() - {"name", "kind"}
    if wanted != given:
        wrong = [*(f"without {n}" for n in sorted(wanted - given)), *(f"with {n}" for n in sorted(given - wanted))]
        raise UsageError(
            f"{who} states its arguments {printable(', '.join(wrong))}, needs exactly {', '.join(sorted(wanted))}"
        )
    try:
        return kind.model_validate(stated)
    except ValidationError as error:
        raise UsageError(f"{who}: {first_problem(error)}") from None


def kind_name(kind: type[Attack]) -> str:
    """What protocols call a kind."""
    return str(get_args(kind.model_fields["kind"].annotation)[0])


def _stated(value: Any) -> Attack:
    try:
        return read_attack(value)
    except (UnknownNameError, UsageError) as error:
        raise ValueError(str(error)) from None


AnyAttack = Annotated[SerializeAsAny[Attack], BeforeValidator(_stated)]
"""A field of a protocol: an attack of any registered kind, chosen by ``kind``."""


def standard_attacks() -> dict[str, Attack]:
    """Attacks that users may ask for beside a protocol's, by name."""
    found = [kind.standard() for kind in (attacks.get(name) for name in attacks.names()) if not kind.needs_surrogate]
    return {attack.name: attack for attack in found if attack is not None}
