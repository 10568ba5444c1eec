"""What mutations are made of."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltrobust_bench.records.schema import Result
from ltrobust_bench.scores.bits import pack, unpack

Json = dict[str, Any]


class NotApplicableError(Exception):
    """This record has nothing that the mutation could change."""


@dataclass
class Sample:
    """A record while it is mutated.

    Attributes:
        raw: its JSON; mutations change it in place.
        sealed: whether digest and place are made to fit again.
        data: bytes to write instead of ``raw``.
        place: where to write them; None: where the run says.
        beside: other records that lie on the same board.
    """

    raw: Json
    sealed: bool = True
    data: bytes | None = None
    place: str | None = None
    beside: list[Json] = field(default_factory=list)


@dataclass(frozen=True)
class Mutation:
    """A class of mutations; ``rule`` must refuse it, None: it must be accepted."""

    name: str
    section: str
    rule: str | None
    apply: Callable[[Sample, random.Random], None]


MUTATIONS: list[Mutation] = []


def mutation(section: str, rule: str | None = None) -> Callable[[Callable[[Sample, random.Random], None]], None]:
    """Add a function as a mutation, called as the function is."""

    def add(function: Callable[[Sample, random.Random], None]) -> None:
        MUTATIONS.append(Mutation(function.__name__.replace("_", " "), section, rule, function))

    return add


def sets(section: str, name: str, path: str, *values: Any, rule: str | None = None) -> None:
    """Add a mutation that writes one of some values (or what a function of the old value makes) at a path."""

    def apply(sample: Sample, rng: random.Random) -> None:
        parent, key = walk(sample.raw, path)
        value = rng.choice(values)
        if callable(value):
            value = value(parent.get(key), rng)
        if key in parent and parent[key] == value and type(parent[key]) is type(value):
            raise NotApplicableError
        parent[key] = value

    MUTATIONS.append(Mutation(name, section, rule, apply))


def walk(raw: Json, path: str) -> tuple[Json, str]:
    """The mapping that holds the last key of a path like ``run/recipe/lr``, and that key."""
    *branches, key = path.split("/")
    for branch in branches:
        raw = raw.get(branch)  # type: ignore[assignment]
        if not isinstance(raw, dict):
            raise NotApplicableError
    return raw, key


def leaves(tree: Any) -> list[tuple[Any, Any]]:
    """Every (parent, key) of a value that is no mapping, and of every entry of a list; but not the digest, which the
    seal writes again."""
    found = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, (dict, list)) and value:
            found += leaves(value)
        elif not isinstance(value, (dict, list)) and key != "digest":
            found.append((tree, key))
    return found


def mappings(tree: Json) -> list[Json]:
    """Every mapping with fixed fields."""
    inner = [v for k, v in tree.items() if isinstance(v, dict) and k not in ("options", "overrides", "bits")]
    return [tree] + [m for v in inner for m in mappings(v)]


def bits_of(sample: Sample, name: str) -> np.ndarray:
    """The bits of an attack, uint8, shape [T]."""
    return unpack(sample.raw["result"]["bits"][name], sum(sample.raw["run"]["test_counts"]), 1)


def hexadecimal(length: int) -> Callable[[Any, random.Random], str]:
    """For :func:`sets`: drawn digits."""
    return lambda _, rng: f"{rng.getrandbits(4 * length):0{length}x}"


def more(value: float, rng: random.Random) -> float:
    """For :func:`sets`: a larger number of the same type."""
    return type(value)(value + rng.randint(1, 10**6))


def clear_a_bit(sample: Sample, rng: random.Random) -> None:
    """One image less withstands FGSM."""
    bits = bits_of(sample, "fgsm")
    if not bits.any():
        raise NotApplicableError
    bits[rng.choice(np.flatnonzero(bits).tolist())] = 0
    sample.raw["result"]["bits"]["fgsm"] = pack(bits, 1)


def confirm(raw: Json, images: int) -> None:
    """Where a copy was climbed: the network itself confirmed so many images more."""
    if (searched := raw["result"].get("searched")) is not None:
        searched["confirmed"] += images


def another_seed(sample: Sample, rng: random.Random) -> None:
    """A run of the next seed lies on the same board, with weights and bits of its own."""
    other = copy.deepcopy(sample.raw)
    other["run"]["seed"] += 1 + len(sample.beside)
    other["result"]["weights_sha256"] = hexadecimal(64)(None, rng)
    bits = bits_of(sample, "fgsm")
    standing = np.flatnonzero(bits).tolist()
    chosen = rng.sample(standing, len(standing) // 2)
    confirm(other, len(chosen))
    bits[chosen] = 0
    other["result"]["bits"]["fgsm"] = pack(bits, 1)
    other["result"]["digest"] = Result.digest_of(other["result"]["bits"], other["result"].get("broken_by"))
    sample.beside.append(other)
