"""The result of attacking any model, with the numbers a user asks for first."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from ltrobust_bench.evaluation.about import About, cells_of, columns_of
from ltrobust_bench.notebook import accuracies, in_short
from ltrobust_bench.scores.metrics import Metrics, metrics_from_bits
from ltrobust_bench.scores.reliability import Flag, Reliability, flags


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What a model withstood, image by image.

    Attributes:
        bits: ``clean`` and each attack: correct, bool, shape [T].
        labels: shape [T], sorted.
        train_counts: training images per label, which define head, medium and tail.
        broken_by: AutoAttack's first successful attack (0 none, 1-4), shape [T], or None.
        forwards, backwards: images passed through the model.
        seconds: wall time.
        reliability: what was measured of the model; None if only a part of the suite was run.
        about: which model, images, protocol and attacks it is a result of.
        noticed: what a look at a model that is not ours found, whatever it was attacked with.
        adaptive: attacks of ``bits`` beside the frozen suite. Each was run on what all before it left standing, and its
            bits are those of them all.
    """

    bits: dict[str, np.ndarray]
    labels: np.ndarray
    train_counts: list[int]
    broken_by: np.ndarray | None
    forwards: int
    backwards: int
    seconds: float
    reliability: Reliability | None = None
    about: About | None = None
    adaptive: tuple[str, ...] = ()
    noticed: tuple[Flag, ...] = ()

    @property
    def frozen(self) -> np.ndarray:
        """Which images the frozen suite alone leaves standing, bool, shape [T]."""
        return np.logical_and.reduce([bits for name, bits in self.bits.items() if name not in self.adaptive])

    @property
    def broken_after(self) -> dict[str, int]:
        """Images that each adaptive attack broke of those that everything before it had left standing."""
        found, before = {}, self.frozen
        for name in self.adaptive:
            after = before & self.bits[name]
            found[name], before = int((before & ~after).sum()), after
        return found

    @property
    def flags(self) -> list[Flag]:
        """Signs that the verdict can not be trusted, see :mod:`ltrobust_bench.scores.reliability`."""
        measured = flags(self.bits, self.broken_by, self.reliability, len(self.train_counts))
        known = {flag.name for flag in measured}
        return measured + [flag for flag in self.noticed if flag.name not in known]

    @property
    def attacks(self) -> list[str]:
        """The attacks, in the suite's order."""
        return [name for name in self.bits if name != "clean"]

    def csv(self) -> str:
        """One row per attack, then their union: accuracy in per cent over all classes, by group, worst, and of each
        class, empty where there is no such group; then what it is about (:class:`~.about.About`)."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = ("balanced", "head", "medium", "tail", "worst_class", "worst_tenth")
        classes = (f"class_{c}" for c in range(len(self.train_counts)))
        writer.writerow(["attack", *columns, *classes, *columns_of(self.about)])
        for name in ("clean", *self.attacks, "union"):
            m = self.metrics(name)
            values = [*(float(getattr(m, column)) for column in columns), *m.per_class]
            cells = ("" if v != v else f"{100 * float(v):.2f}" for v in values)
            writer.writerow([name, *cells, *cells_of(self.about, name)])
        return text.getvalue()

    def __repr__(self) -> str:
        said = in_short({name: self.metrics(name) for name in ("clean", "union")})
        return f"<Evaluation of {len(self.labels)} images, {len(self.attacks)} attacks: {said}>"

    def _repr_html_(self) -> str:
        rows = {name: self.metrics(name) for name in ("clean", *self.attacks, "union")}
        flags = "".join(f"; flag: {flag.name} ({flag.seen})" for flag in self.flags)
        note = f"accuracy in % on {len(self.labels)} images; union: withstands every attack{flags}"
        return accuracies("Evaluation", rows, note)

    def metrics(self, attack: str = "union") -> Metrics:
        """Accuracies under ``attack``: ``clean``, an attack's name, or ``union`` (per-image worst case of all).

        Raises:
            KeyError: for an attack that was not run.
        """
        union = np.logical_and.reduce(list(self.bits.values()))
        bits = union if attack == "union" else self.bits[attack]
        return metrics_from_bits(bits, self.labels, self.train_counts)
