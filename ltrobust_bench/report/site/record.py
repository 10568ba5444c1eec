"""A record as its page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ltrobust_bench.attacks.autoattack import BROKEN_BY
from ltrobust_bench.records.numbers import class_accuracies, flags_of
from ltrobust_bench.records.schema import Record, Said
from ltrobust_bench.report.board import METRICS
from ltrobust_bench.report.reproduce import command
from ltrobust_bench.report.site import words
from ltrobust_bench.report.site.chart import Chart, per_class
from ltrobust_bench.report.site.line import Line
from ltrobust_bench.scores.metrics import metrics_from_classes
from ltrobust_bench.scores.reliability import Flag

LEVELS = {
    "claimed": "as submitted; nobody has repeated the run to verify it",
    "re-evaluated": "its weights were attacked again, with the same result up to what random starts change",
    "retrained": "its whole run was done again, with the same result up to what seeds change",
}
"""How far a record has been verified, and what it means."""


@dataclass(frozen=True)
class RecordView:
    """One record, where it counts, and the page of the run it builds on."""

    record: Record
    line: Line
    base: str | None

    @property
    def level(self) -> str:
        standing = self.record.standing
        return "claimed" if standing is None else standing.level

    @property
    def disputed(self) -> tuple[str, ...]:
        return () if self.record.standing is None else self.record.standing.disputed

    @property
    def said(self) -> tuple[Said, ...]:
        """Who stated what, and what it is worth."""
        return () if self.record.standing is None else self.record.standing.said

    @property
    def lowered(self) -> int:
        """How many images that its suite left standing somebody broke."""
        broken = None if self.record.standing is None else self.record.standing.broken
        return 0 if broken is None else int(broken.sum())

    @property
    def title(self) -> str:
        return self.line.called

    @property
    def command(self) -> str:
        return command([self.record])

    @property
    def flags(self) -> list[Flag]:
        return flags_of(self.record)

    @cached_property
    def _classes(self) -> np.ndarray:
        """Accuracy per class, fractions, shape [rows, C]; rows: clean, the attacks, union."""
        return class_accuracies([self.record], self.record.attacks)[0]

    @property
    def rows(self) -> list[tuple[str, dict[str, float]]]:
        """Name and percentages of each attack, from 'clean' to 'union'."""
        run = self.record.run
        found = metrics_from_classes(self._classes, run.test_counts, run.train_counts)
        names = ["clean", *self.record.attacks, "union"]
        return [(name, {m: 100 * float(getattr(found, m)[i]) for m in METRICS}) for i, name in enumerate(names)]

    @property
    def broken_by(self) -> dict[str, int]:
        """Images by the attack of AutoAttack that broke them first."""
        by = self.record.broken_by()
        return {} if by is None else {name: int((by == i).sum()) for i, name in enumerate(BROKEN_BY) if i}

    @property
    def chart(self) -> Chart:
        return per_class(self.record.run.train_counts, 100 * self._classes[0], 100 * self._classes[-1:])

    @property
    def sections(self) -> dict[str, dict[str, str]]:
        """Everything else that the record says, by heading."""
        record, run = self.record, self.record.run
        found = {
            "Run": run.model_dump(exclude={"recipe", "epochs", *DIGESTS})
            | {"epochs, given by hand": run.epochs, "attacks searched on": record.result.search},
            "Recipe": run.recipe.model_dump(),
            "Cost": record.cost.model_dump(exclude_none=True),
            "Environment": record.environment.model_dump(),
            "Status": record.status.model_dump(),
            "Reliability, as measured": record.reliability.model_dump() if record.reliability else {},
            "Digests (SHA-256)": {
                "run key": run.key(),
                "result": record.result.digest,
                "weights": record.result.weights_sha256,
                **run.model_dump(include=DIGESTS, exclude_none=True),
            },
        }
        return {heading: words.said(values) for heading, values in found.items()}


DIGESTS = {"protocol_digest", "train_index_sha256", "test_index_sha256", "source_sha256", "base_key"}


def record_views(lines: Sequence[Line]) -> list[RecordView]:
    """The records that count on some board."""
    placed = [(record, line) for line in lines for record in line.entry.runs]
    pages = {record.run.key(): record.id for record, _ in placed}
    return [RecordView(record, line, pages.get(record.run.base_key or "")) for record, line in placed]
