"""Frozen evaluation and training protocols: TOML files, their loader and their digest."""

from ltrobust_bench.protocol.load import default_protocol, load_protocol, protocols
from ltrobust_bench.protocol.spec import (
    AttackSpec,
    DatasetTerms,
    Protocol,
    Recipe,
    Suite,
    Track,
)

__all__ = [
    "AttackSpec",
    "DatasetTerms",
    "Protocol",
    "Recipe",
    "Suite",
    "Track",
    "default_protocol",
    "load_protocol",
    "protocols",
]
