"""Reading protocol files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import get_args

from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol.spec import Protocol, Status, terms_key
from ltrobust_bench.reading import read_toml
from ltrobust_bench.registry import Registration, Registry
from ltrobust_bench.terms import first_problem

PROTOCOL_FILES = Path(__file__).parent
MAIN = "ltr-linf-v1"
"""The protocol whose numbers are for papers."""


def _scan() -> list[Registration]:
    return [Registration(f.stem, f, origin=f"protocol/{f.name}") for f in sorted(PROTOCOL_FILES.glob("*.toml"))]


protocols: Registry[Path] = Registry("protocol", discover=_scan)


@cache
def load_protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        UnknownNameError: with the nearest names.
    """
    return read_protocol(protocols.get(name))


def read_protocol(path: Path) -> Protocol:
    """The protocol in a TOML file.

    Raises:
        UsageError: if the file is no valid protocol; the message names the field.
    """
    try:
        return Protocol.model_validate(read_toml(path))
    except (OSError, ValueError) as error:  # of the file, of its TOML, or of its terms
        raise UsageError(f"{path} is not a valid protocol: {first_problem(error)}") from None


def default_protocol(dataset: str) -> str:
    """The protocol a data set is run under when none is named, of those that have it: Linf before other threat models,
    then the main one, a frozen one, a candidate, a disposable one, a smoke test."""
    order = get_args(Status)
    having = [p for p in map(load_protocol, protocols.names()) if terms_key(dataset) in p.datasets]
    if not having:
        raise UsageError(f"no protocol covers {dataset}.")
    return min(having, key=lambda p: (p.threat_model != "Linf", p.name != MAIN, order.index(p.status), p.name)).name
