"""The one record type. A record holds one bit per test image and attack; every percentage is derived from it.

Bits are ordered by (label, index in the data set's test set) and mean "classified correctly": ``clean`` on the
image itself, an attack's name on the image and on what the attack made of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, model_validator

from ltrobust_bench.attacks.autoattack import NAMES
from ltrobust_bench.errors import RecordError
from ltrobust_bench.notebook import accuracies, in_short
from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.run import Name, RunSection, Sha256, Text
from ltrobust_bench.protocol.spec import Search
from ltrobust_bench.scores.bits import count_by_class, packed_bytes, unpack
from ltrobust_bench.scores.metrics import Metrics, metrics_from_bits
from ltrobust_bench.scores.reliability import SQUARE, Reliability
from ltrobust_bench.terms import Strict, canonical_digest

SCHEMA_VERSION = 1


class Searched(Strict):
    """How a search on a copy of the network went, in images, each counted once for every attack that it was put
    through. Nothing counts as broken but what breaks the network itself, in float32."""

    confirmed: int = Field(ge=0, description="broken by what the search found")
    unconfirmed: int = Field(
        ge=0, description="the copy was fooled, the network was not; all searched again, on the network in float32"
    )
    broken_again: int = Field(ge=0, description="of the unconfirmed: broken by the second search")


class Result(Strict):
    """What the evaluation found, image by image."""

    bits: dict[Name, str] = Field(max_length=100, description="'clean' and each attack: base64 of the packed bits")
    broken_by: str | None = Field(
        default=None,
        description="AutoAttack: which attack broke the image first (0 none, 1-4), 3 bits an image",
    )
    search: Search = Field(
        default="network",
        description="what the attacks searched on; the network itself, in float32, confirmed every success",
    )
    searched: Searched | None = Field(default=None, description="how that search went; absent where it was the network")
    weights_sha256: Sha256
    digest: Sha256

    @staticmethod
    def digest_of(bits: dict[str, str], broken_by: str | None) -> str:
        """SHA-256 (hex) of bits and broken_by: two evaluations of the same weights give the same one."""
        return canonical_digest({"bits": bits, "broken_by": broken_by})


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
    devices: int = Field(
        default=1, ge=1, description="that computed the last session together, each a part of every batch"
    )
    precision: Text = Field(description="of training")
    tf32: bool = Field(description="in verdicts: never")
    deterministic: bool = Field(
        default=False, description="computed on a GPU with kernels that repeat bit for bit; a CPU's do so anyway"
    )
    created: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$", description="UTC, ISO 8601")
    code: list[Code] = Field(
        default=[], max_length=1000, description="of all sessions; absent in records made before it was recorded"
    )


class Status(Strict):
    reduced: bool
    off_recipe: bool = Field(description="recipe settings other than the precision were overridden")
    exploded: bool = Field(
        default=False,
        description="the loss of an epoch was far beyond that of guessing; absent in older records",
    )
    trials: int = Field(
        ge=0,
        description="settings tried on held-out images before this run, or before its method's defaults were fixed",
    )


Level = Literal["claimed", "re-evaluated", "retrained"]
"""How far others have verified a record."""


@dataclass(frozen=True)
class Said:
    """What somebody said about a record, in words.

    Attributes:
        kind: of the statement: re-evaluated, retrained, counterexamples, thorough or retraction.
        by: who, by their own account.
        date: ISO 8601.
        counts: whether it changes anything.
        why: why it counts, or why it is only a claim.
        says: what it comes to.
    """

    kind: str
    by: str
    date: str
    counts: bool
    why: str
    says: str


@dataclass(frozen=True, eq=False)  # arrays have no truth value, and records are compared by their fields
class Standing:
    """What follows for a record from what others found, see :mod:`ltrobust_bench.records.verify`.

    Attributes:
        level: the highest that a statement confirms.
        broken: images that count as robust in the record and that somebody broke, bool, shape [T]; None: nobody did.
        disputed: why statements do not confirm it, one line each.
        said: all statements, also those that are claims and change nothing.
        confirmed: whether some statement confirms it, though others may dispute it.
        thorough: whether everything that its suite left standing was attacked thoroughly.
        external: whether anybody tried more than the suite: thorough evaluations, or images that somebody found.
        measured: what statements that hold measured of its network's graph, beside the attacks.
        public: whether its board is a public one, where what nobody verified has no rank.
    """

    level: Level = "claimed"
    broken: np.ndarray | None = None
    disputed: tuple[str, ...] = ()
    said: tuple[Said, ...] = ()
    confirmed: bool = False
    thorough: bool = False
    external: bool = False
    measured: tuple[Reliability, ...] = ()
    public: bool = True


@dataclass(frozen=True, eq=False)
class Tally:
    """What boards ask of a record and what takes longest to find out. It follows from the record's file alone, so it is
    remembered from one board to the next, see :mod:`ltrobust_bench.records.cache`.

    Attributes:
        id: first 12 hex digits of run key and result digest together.
        entry_key: see :meth:`RunSection.entry_key`.
        correct: how many images of each class are correct, uint32, shape [len(record.rows), C].
        union: which images withstand every attack, packed bits, uint8, shape [ceil(T / 8)].
        by_square: how many images only Square broke, the last of AutoAttack's attacks; 0 without AutoAttack.
    """

    id: str
    entry_key: str
    correct: np.ndarray
    union: np.ndarray
    by_square: int


SEEN = {"seen": True}
"""Validation context of a file that was a valid record before: its fields are read, its bits are not checked again."""


class Record(Strict):
    """One finished run."""

    # What is stored: a record's file holds these fields and nothing else.
    schema_version: Literal[1]
    run: RunSection
    result: Result
    cost: Cost
    environment: Environment
    status: Status
    reliability: Reliability | None = Field(default=None, description="absent in records made before it was measured")

    # What is derived: everything below follows from the fields; only the standing comes from elsewhere.
    @cached_property
    def standing(self) -> Standing | None:
        """What others found, if the record was read from a public board; else None."""
        return None

    def judged(self, standing: Standing) -> Record:
        """The same record with its standing; images that somebody broke leave the union."""
        return self._knowing("standing", standing)

    def recalled(self, tally: Tally) -> Record:
        """The same record with its tally, which was made before."""
        return self._knowing("tally", tally)

    def _knowing(self, name: str, value: Standing | Tally) -> Record:
        other = self.model_copy()
        other.__dict__[name] = value  # where cached properties are; the model is frozen, and this is no field
        return other

    @cached_property
    def tally(self) -> Tally:
        """What takes longest to find out of this record."""
        rows = np.stack([self.packed(name) for name in self.rows[:-1]])
        union = np.bitwise_and.reduce(rows)
        bits = np.unpackbits(np.vstack([rows, union]), axis=1, count=self.images)
        by = self.broken_by()
        return Tally(
            id=canonical_digest([self.run.key(), self.result.digest])[:12],
            entry_key=self.run.entry_key(),
            correct=count_by_class(bits, self.run.test_counts),
            union=union,
            by_square=0 if by is None else int((by == SQUARE).sum()),
        )

    @property
    def id(self) -> str:
        """First 12 hex digits of run key and result digest together."""
        return self.tally.id

    @property
    def images(self) -> int:
        """How many test images there are, T."""
        return sum(self.run.test_counts)

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks, in the suite's order."""
        return [name for name in self.result.bits if name != "clean"]

    @property
    def rows(self) -> list[str]:
        """What rows of numbers are made of: 'clean', the attacks by name, and 'union', the worst case of all of them
        and of what others broke."""
        return ["clean", *sorted(self.attacks), "union"]

    @property
    def correct(self) -> np.ndarray:
        """How many images of each class are correct, uint32, shape [len(rows), C]."""
        if self.standing is None or self.standing.broken is None:
            return self.tally.correct
        union = count_by_class(self.bits("union"), self.run.test_counts)
        return np.vstack([self.tally.correct[:-1], union])

    def labels(self) -> np.ndarray:
        """Label of each image in the order of the bits, shape [T]."""
        return np.repeat(np.arange(len(self.run.test_counts)), self.run.test_counts)

    def bits(self, name: str) -> np.ndarray:
        """Correctness under ``name`` ('clean', an attack, or 'union' of all attacks and of what others broke), bool,
        shape [T]."""
        return np.unpackbits(self.packed(name), count=self.images).view(bool)

    def metrics(self, attack: str = "union") -> Metrics:
        """Accuracies under ``attack``: 'clean', an attack's name, or 'union', the worst case of all of them.

        Raises:
            KeyError: for an attack that the record does not have.

        Example: ``record.metrics("autoattack").tail``
        """
        return metrics_from_bits(self.bits(attack), self.labels(), self.run.train_counts)

    @property
    def title(self) -> str:
        """What it is a result of: ``reat on digits-lt, IR 20, small, seed 0``."""
        run = self.run
        reduced = ", reduced" if run.reduced else ""
        return f"{run.combination} on {run.dataset}, IR {run.ratio}, {run.model}, seed {run.seed}{reduced}"

    def __repr__(self) -> str:
        return f"<Record {self.id}: {self.title}: {in_short({a: self.metrics(a) for a in ('clean', 'union')})}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = {name: self.metrics(name) for name in ("clean", *self.attacks, "union")}
        return accuracies(self.title, rows, f"accuracy in %; union: withstands every attack; record {self.id}")

    def packed(self, name: str) -> np.ndarray:
        """:meth:`bits`, eight images a byte, spare bits 0: uint8, shape [ceil(T / 8)]."""
        if name != "union":
            return np.frombuffer(packed_bytes(self.result.bits[name], self.images, 1), dtype=np.uint8)
        broken = None if self.standing is None else self.standing.broken
        return self.tally.union if broken is None else self.tally.union & ~np.packbits(broken)

    def broken_by(self) -> np.ndarray | None:
        """AutoAttack's first successful attack per image (0 none, 1-4 as in ``BROKEN_BY``), shape [T]."""
        packed = self.result.broken_by
        return None if packed is None else unpack(packed, self.images, 3)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Record:
        if info.context is not SEEN:
            self._check_bits()
            self._check_broken_by()
            if self.result.digest != Result.digest_of(self.result.bits, self.result.broken_by):
                raise ValueError("result.digest: is not the digest of the bits; was the record edited?")
        if self.status.reduced != self.run.reduced:
            raise ValueError("status.reduced: disagrees with the run's limits")
        if self.status.off_recipe != self.run.off_recipe:
            raise ValueError("status.off_recipe: disagrees with the run's overrides")
        return self

    def _check_bits(self) -> None:
        if "clean" not in self.result.bits or len(self.result.bits) < 2:
            raise ValueError("result.bits: must hold 'clean' and at least one attack")
        if "union" in self.result.bits:
            raise ValueError("result.bits: must not hold 'union', the name of all attacks together")
        for name in self.rows[:-1]:
            try:
                robust = self.packed(name)
            except RecordError as error:
                raise ValueError(f"result.bits.{name}: {error}") from None
            if (robust & ~self.packed("clean")).any():
                raise ValueError(f"result.bits.{name}: an image counts as robust that is misclassified when clean")

    def _check_broken_by(self) -> None:
        auto = [name for name in NAMES if name in self.result.bits]
        if len(auto) != (self.result.broken_by is not None):
            raise ValueError("result.broken_by: belongs to autoattack: both or neither")
        try:
            by = self.broken_by()
        except RecordError as error:
            raise ValueError(f"result.broken_by: {error}") from None
        if by is not None and (by.max() > SQUARE or ((by > 0) != self.bits("clean") & ~self.bits(auto[0])).any()):
            raise ValueError("result.broken_by: disagrees with the bits of autoattack")


def json_schema() -> str:
    """The JSON Schema (draft 2020-12) of a record, as its file holds it. It states types and ranges; what fields must
    be of one another is checked by ``ltbench record validate``."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}
    return json.dumps(schema, indent=1) + "\n"
