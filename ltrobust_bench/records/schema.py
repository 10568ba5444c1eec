"""The one record type. A record holds one bit per test image and attack; every percentage is derived from it.

Bits are ordered by (label, index in the data set's test set) and mean "classified correctly": ``clean`` on the
image itself, an attack's name on the image and on what the attack made of it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltrobust_bench.attacks.autoattack import NAMES
from ltrobust_bench.errors import RecordError
from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.run import Crafting, Name, RunSection, Sha256, Text
from ltrobust_bench.scores.bits import broken_by_fourth, count_by_class, packed_bytes, unpack
from ltrobust_bench.scores.reliability import Reliability
from ltrobust_bench.terms import Strict

SCHEMA_VERSION = 1


class Result(Strict):
    """What the evaluation found, image by image."""

    bits: dict[Name, str] = Field(max_length=100, description="'clean' and each attack: base64 of the packed bits")
    broken_by: str | None = Field(
        default=None,
        description="AutoAttack: which attack broke the image first (0 none, 1-4), 3 bits an image",
    )
    search: Crafting = Field(
        default="network", description="what the attacks searched on; the network itself confirmed every success"
    )
    weights_sha256: Sha256
    digest: Sha256

    @staticmethod
    def digest_of(bits: dict[str, str], broken_by: str | None) -> str:
        """SHA-256 (hex) of bits and broken_by: two evaluations of the same weights give the same one.

        It is the ``canonical_digest`` of both. Names and base64 hold nothing that JSON escapes, so the text is put
        together without looking for it: most of a record is bits.
        """
        rows = ",".join(f'"{name}":"{bits[name]}"' for name in sorted(bits))
        broken = "null" if broken_by is None else f'"{broken_by}"'
        return hashlib.sha256(f'{{"bits":{{{rows}}},"broken_by":{broken}}}'.encode()).hexdigest()


class Work(Strict):
    """Computing done, in images passed forward and backward through the network, and in seconds."""

    forwards: int = Field(ge=0)
    backwards: int = Field(ge=0)
    seconds: float = Field(ge=0, le=10**10)


class Cost(Strict):
    """What the result cost; training and optimiser steps include the run it builds on."""

    training: Work
    evaluation: Work
    optimizer_steps: int = Field(ge=0)
    base: Work | None = Field(default=None, description="the part of training that the run it builds on took")


class Environment(Strict):
    """Where and with what it was made."""

    package_version: Text
    git_commit: Text | None = Field(description="of the last session")
    git_dirty: bool | None = Field(description="whether any session had uncommitted changes; none: not known of all")
    python: Text
    torch: Text
    pyautoattack: Text | None
    device: Text
    threads: int = Field(ge=1)
    precision: Text
    tf32: bool
    created: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$", description="UTC, ISO 8601")
    code: list[Code] = Field(
        default=[], max_length=1000, description="of all sessions; absent in records made before it was recorded"
    )


class Status(Strict):
    reduced: bool
    off_recipe: bool = Field(description="recipe settings were overridden")
    trials: int = Field(ge=0, description="configurations tried on a validation split before this run")


Level = Literal["claimed", "re-evaluated", "retrained"]
"""How far others have verified a record."""


@dataclass(frozen=True, eq=False)  # arrays have no truth value, and records are compared by their fields
class Standing:
    """What follows for a record from what others found, see :mod:`ltrobust_bench.records.verify`.

    Attributes:
        level: the highest that a statement confirms.
        broken: images that count as robust in the record and that somebody broke, bool, shape [T]; None: nobody did.
        disputed: why statements do not confirm it, one line each.
    """

    level: Level = "claimed"
    broken: np.ndarray | None = None
    disputed: tuple[str, ...] = ()


class Record(Strict):
    """One finished run."""

    schema_version: Literal[1]
    run: RunSection
    result: Result
    cost: Cost
    environment: Environment
    status: Status
    reliability: Reliability | None = Field(default=None, description="absent in records made before it was measured")

    @cached_property
    def standing(self) -> Standing | None:
        """What others found, if the record was read from a public board; else None. Not part of its file."""
        return None

    def judged(self, standing: Standing) -> Record:
        """The same record with its standing; images that somebody broke leave the union."""
        other = self.model_copy()
        for name in ("_union", "correct", "correct_by_class"):
            other.__dict__.pop(name, None)
        other.__dict__["standing"] = standing  # the model is frozen, and this is no field of its file
        return other

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of run key and result digest together."""
        # The canonical_digest of both: hex digits need no escapes.
        return hashlib.sha256(f'["{self._digests[0]}","{self.result.digest}"]'.encode()).hexdigest()[:12]

    @property
    def entry_key(self) -> str:
        """Digest (hex) of the run without its seed: records that have the same are seeds of one entry."""
        return self._digests[1]

    @cached_property
    def _digests(self) -> tuple[str, str]:
        return self.run.digests()

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks, in the suite's order."""
        return [name for name in self.result.bits if name != "clean"]

    @property
    def rows(self) -> list[str]:
        """What rows of numbers are made of: 'clean', the attacks by name, and 'union', the worst case of all of them
        and of what others broke."""
        return ["clean", *sorted(self.attacks), "union"]

    @cached_property
    def correct(self) -> dict[str, int]:
        """How many images are correct, of each of :attr:`rows`."""
        _count([self])
        return self.correct

    @cached_property
    def correct_by_class(self) -> bytes:
        """The same class by class, uint32, shape [len(rows), C]; as bytes, since that is quick to hand over."""
        _count([self])
        return self.correct_by_class

    def labels(self) -> np.ndarray:
        """Label of each image in the order of the bits, shape [T]."""
        return np.repeat(np.arange(len(self.run.test_counts)), self.run.test_counts)

    def bits(self, name: str) -> np.ndarray:
        """Correctness under ``name`` ('clean', an attack, or 'union' of all attacks and of what others broke), bool,
        shape [T]."""
        return np.unpackbits(self.packed(name), count=sum(self.run.test_counts)).view(bool)

    def packed(self, name: str) -> np.ndarray:
        """:meth:`bits`, eight images a byte, spare bits 0: uint8, shape [ceil(T / 8)]."""
        if name == "union":
            return np.frombuffer(self._union, dtype=np.uint8)
        return np.frombuffer(self._decoded[name], dtype=np.uint8)

    @cached_property
    def _union(self) -> bytes:
        _count([self])
        return self._union

    @cached_property
    def _decoded(self) -> dict[str, bytes]:
        """The bytes of each row of bits, in the order of :attr:`rows`."""
        total, bits = sum(self.run.test_counts), self.result.bits
        return {name: _bytes(f"result.bits.{name}", bits[name], total, 1) for name in self.rows[:-1]}

    def broken_by(self) -> np.ndarray | None:
        """AutoAttack's first successful attack per image (0 none, 1-4 as in ``BROKEN_BY``), shape [T]."""
        packed = self.result.broken_by
        return None if packed is None else unpack(packed, sum(self.run.test_counts), 3)

    @cached_property
    def broken_by_square(self) -> int:
        """How many images only Square broke, the last of AutoAttack's attacks; 0 without AutoAttack.

        Raises:
            ValueError: if ``result.broken_by`` does not fit AutoAttack's bits.
        """
        packed = self.result.broken_by
        auto = [name for name in NAMES if name in self.result.bits]
        if len(auto) != (packed is not None):
            raise ValueError("result.broken_by: belongs to autoattack: both or neither")
        if packed is None:
            return 0
        clean, robust = (int.from_bytes(self._decoded[name], "big") for name in ("clean", auto[0]))
        total = sum(self.run.test_counts)
        # Nothing is robust that is not clean, so where the two differ, an attack broke the image.
        by_square = broken_by_fourth(packed, clean ^ robust, total)
        if by_square is None:
            _bytes("result.broken_by", packed, total, 3)
            raise ValueError("result.broken_by: disagrees with the bits of autoattack")
        return by_square

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if "clean" not in self.result.bits or len(self.result.bits) < 2:
            raise ValueError("result.bits: must hold 'clean' and at least one attack")
        if "union" in self.result.bits:
            raise ValueError("result.bits: must not hold 'union', the name of all attacks together")
        # Numbers of thousands of digits are quicker than arrays of bits.
        clean = int.from_bytes(self._decoded["clean"], "big")
        for name, raw in self._decoded.items():
            if int.from_bytes(raw, "big") | clean != clean:
                raise ValueError(f"result.bits.{name}: an image counts as robust that is misclassified when clean")
        _ = self.broken_by_square
        if self.result.digest != Result.digest_of(self.result.bits, self.result.broken_by):
            raise ValueError("result.digest: is not the digest of the bits; was the record edited?")
        if self.status.reduced != self.run.reduced:
            raise ValueError("status.reduced: disagrees with the run's limits")
        if self.status.off_recipe != bool(self.run.overrides):
            raise ValueError("status.off_recipe: disagrees with the run's overrides")
        return self


def condense(records: Sequence[Record]) -> None:
    """Compute what boards ask records for while their bits are at hand, and let go of those until somebody asks for
    them again: thousands of records are handed over from process to process, and kept."""
    by_size: dict[tuple[int, ...], list[Record]] = defaultdict(list)
    for record in records:
        by_size[len(record.result.bits), *record.run.test_counts].append(record)
    for some in by_size.values():
        for start in range(0, len(some), IN_CACHE):
            _count(some[start : start + IN_CACHE])
    for record in records:
        _ = record.id
        record.__dict__.pop("_decoded", None)


IN_CACHE = 16
"""Records whose bits are unpacked together: fewer take longer, and so do more than the processor's cache holds."""


def _count(records: Sequence[Record]) -> None:
    """Have records of equally many attacks and images per class know their union and counts."""
    images = records[0].run.test_counts
    joined = b"".join([row for record in records for row in record._decoded.values()])
    rows = np.frombuffer(joined, dtype=np.uint8).reshape(len(records), len(records[0].result.bits), -1)
    union = np.bitwise_and.reduce(rows, axis=1)
    for i, record in enumerate(records):
        if record.standing is not None and record.standing.broken is not None:
            union[i] &= ~np.packbits(record.standing.broken)
    bits = np.unpackbits(np.concatenate([rows, union[:, None]], axis=1), axis=-1, count=sum(images))
    by_class = count_by_class(bits, images).astype(np.uint32)
    for record, own, counts, sums in zip(records, union, by_class, by_class.sum(axis=-1).tolist(), strict=True):
        correct = dict(zip(record.rows, sums, strict=True))
        record.__dict__.update(_union=own.tobytes(), correct=correct, correct_by_class=counts.tobytes())


def json_schema() -> str:
    """The JSON Schema (draft 2020-12) of a record, as its file holds it. It states types and ranges; what fields must
    be of one another is checked by ``ltbench record validate``."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"


def _bytes(field: str, text: str, count: int, width: int) -> bytes:
    """:func:`packed_bytes`, with an error that names the field and is one of validation."""
    try:
        return packed_bytes(text, count, width)
    except RecordError as error:
        raise ValueError(f"{field}: {error}") from None
