"""A record under examination, and how a rule says what it finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ltrobust_bench.cards import Card, methods
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import DatasetTerms, Protocol, protocols
from ltrobust_bench.protocol.spec import terms_key
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.strict import Finding, finding

Findings = Iterator[Finding]


@dataclass(frozen=True)
class Case:
    """A record, and what is known of its terms.

    Attributes:
        record: the record.
        protocol: its protocol; None if it is unknown or says nothing about the data set.
        card: its method's card; None if it is unknown.
        place: where it lies below a folder ``records``; None if it lies in none, and no board shows it.
        now: the time of the examination.
    """

    record: Record
    protocol: Protocol | None
    card: Card | None
    place: str | None
    now: datetime

    @classmethod
    def of(cls, record: Record, place: str | None, now: datetime) -> Case:
        run = record.run
        protocol = protocol_for(run.dataset, run.protocol) if run.protocol in protocols else None
        if protocol is not None and terms_key(run.dataset) not in protocol.datasets:
            protocol = None
        card = methods.get(run.method).card if run.method in methods else None
        return cls(record, protocol, card, place, now)

    @property
    def run(self) -> RunSection:
        return self.record.run

    @property
    def terms(self) -> DatasetTerms | None:
        return None if self.protocol is None else self.protocol.terms(self.run.dataset)

    @property
    def current_card(self) -> Card | None:
        """The card, if it is of the record's version: what an older one said is not known any more."""
        return self.card if self.card is not None and self.card.version == self.run.card_version else None


def equal(field: str, seen: Any, wanted: Any, why: str) -> Findings:
    """``seen`` must be ``wanted``; of mappings and lists of the same length the parts that differ are named."""
    if isinstance(seen, Mapping) and isinstance(wanted, Mapping) and seen.keys() == wanted.keys():
        for key in seen:
            yield from equal(f"{field}.{key}", seen[key], wanted[key], why)
    elif seen != wanted or type(seen) is not type(wanted):
        yield finding(field, f"must be {wanted!r}, {why}", seen)
