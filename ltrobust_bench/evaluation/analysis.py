"""One network class by class: natural and boundary error, where attacked images end, norms, margins.

Numbers only, from what :mod:`ltrobust_bench.evaluation.observe` saw. Tables list the largest training class first.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ltrobust_bench.evaluation.about import About, cells_of, columns_of
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.scores.groups import by_size, rank_groups, ranks
from ltrobust_bench.scores.metrics import metrics_from_bits

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
UNION = "union"
"""Name of the attack that is the per-image worst case over the suite."""
HeadKind = Literal["linear", "cosine", "other"]


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: one per label.
        train_counts, test_counts: images per label.
        about: which network, images, protocol and attacks the tables are about.
    """

    names: tuple[str, ...]
    train_counts: Sequence[int]
    test_counts: Sequence[int]
    about: About | None = None

    @property
    def order(self) -> np.ndarray:
        """Labels from the largest training class to the smallest, int, shape [C]."""
        return by_size(self.train_counts)

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """Labels of head, medium and tail, see :func:`~ltrobust_bench.scores.groups.rank_groups`."""
        return rank_groups(self.train_counts)

    def means(self, values: np.ndarray) -> dict[str, float]:
        """Mean of ``values`` [C] over ``all`` classes and over each group's; every class counts alike."""
        return {name: float(values[labels].mean()) for name, labels in {"all": self.order, **self.groups}.items()}

    def csv(self, columns: Sequence[str], lines: Callable[[int], Sequence[Sequence[str]]], attack: str = "") -> str:
        """A table: what the class is, then ``columns``, then what it is about.

        Args:
            lines: the cells of ``columns`` for a label, one list per line.
            attack: name of the attack it rests on.
        """
        rank = ranks(self.train_counts)
        group = {int(c): name for name, labels in self.groups.items() for c in labels}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["class", "label", "rank", "group", "train_images", "test_images", *columns, *columns_of(self.about)]
        )
        end = cells_of(self.about, attack)
        for c in self.order.tolist():
            about = [self.names[c], c, rank[c], group.get(c, ""), self.train_counts[c], self.test_counts[c]]
            writer.writerows([*about, *cells, *end] for cells in lines(c))
        return text.getvalue()


@dataclass(frozen=True)
class Answers:
    """What a network says to images.

    Attributes:
        predicted: label of the largest logit, int, shape [T].
        margins: logit of the true class minus the largest other one, shape [T]; below 0 where it is wrong.
    """

    predicted: np.ndarray
    margins: np.ndarray


@dataclass(frozen=True)
class Head:
    """The class vectors behind the deployed logits.

    Attributes:
        kind: the deployed logits are ``linear`` in the feature (with or without bias), in its direction (``cosine``),
            or neither (``other``).
        deployed: norm of the vector w_c that makes the deployed logit <w_c, h> + b_c of a feature h (cosine: of
            h / |h|), shape [C]; None for ``other``.
        stored: norm of each row of the head's ``weight``, shape [C]; None without such rows.
    """

    kind: HeadKind
    deployed: np.ndarray | None
    stored: np.ndarray | None

    @property
    def note(self) -> str:
        """What the norms mean for the logits."""
        if self.kind == "linear":
            return "linear head: class vectors as they act in the deployed logits"
        if self.kind == "cosine" and self.deployed is not None:
            norms = " to ".join(dict.fromkeys(f"{v:.3g}" for v in (self.deployed.min(), self.deployed.max())))
            return (
                f"cosine head: norms of features and of stored class vectors do not act as they are; in the logits "
                f"features have norm 1 and class vectors {norms}"
            )
        return "neither a linear nor a cosine head: these norms do not make the logits by themselves"


@dataclass(frozen=True)
class Observations:
    """What was seen of a network on T test images.

    Attributes:
        labels: shape [T].
        clean, attacked: its answers to the images, and to what the attack made of *each* of them.
        attack: the attack's name.
        feature_norms: L2 norm of the input of the classifier head, clean images, shape [T]; None if the deployed
            model has no one backbone.
        head: None likewise.
    """

    labels: np.ndarray
    clean: Answers
    attacked: Answers
    attack: str
    feature_norms: np.ndarray | None
    head: Head | None


@dataclass(frozen=True)
class Errors:
    """Robust error as natural plus boundary error (Zhang et al., ICML 2019, TRADES, eq. 1).

    Attributes:
        natural: share of each class that is misclassified clean, [0, 1], shape [C].
        boundary: share that is correct clean and broken by the attack, shape [C].
        attack: its name, or ``union``: the worst case over the suite.
    """

    classes: Classes
    natural: np.ndarray
    boundary: np.ndarray
    attack: str

    def csv(self) -> str:
        """One line per class, per cent."""
        columns = ["natural_error", "boundary_error", "robust_error", "attack"]
        both = np.stack([self.natural, self.boundary, self.natural + self.boundary], axis=1)
        return self.classes.csv(columns, lambda c: [[*map(_percent, both[c]), self.attack]], self.attack)


@dataclass(frozen=True)
class Confusion:
    """What attacked images are taken for.

    The diagonal is not quite robust accuracy: an image that is wrong clean and right when attacked counts in it.

    Attributes:
        shares: of the images of class i those predicted as j, by label, shape [C, C]; rows add up to 1.
        attack: its name.
    """

    classes: Classes
    shares: np.ndarray
    attack: str

    @property
    def ends(self) -> dict[str, np.ndarray]:
        """Share of each class that is predicted as a class of the head, the medium, the tail third, shape [C]."""
        return {name: self.shares[:, labels].sum(axis=1) for name, labels in self.classes.groups.items()}

    @property
    def fates(self) -> dict[str, np.ndarray]:
        """Share of each class that is ``correct``, and that is taken for another class of each third, shape [C]."""
        correct = self.shares.diagonal()
        own = {name: np.isin(np.arange(len(correct)), labels) for name, labels in self.classes.groups.items()}
        return {"correct": correct, **{name: share - correct * own[name] for name, share in self.ends.items()}}

    def takers(self, group: str = "tail") -> list[tuple[int, float]]:
        """The classes outside a group that the group's images are taken for, and their share of them (mean over the
        group's classes), largest first; none that take nothing."""
        own = self.classes.groups.get(group, self.classes.order)
        taken = self.shares[own].mean(axis=0)
        found = [(c, float(taken[c])) for c in np.argsort(-taken, kind="stable").tolist() if c not in own]
        return [(c, share) for c, share in found if share > 0]

    def csv(self) -> str:
        """One line per true class, per cent: its share in each third of the classes, then in each class."""
        order, ends = self.classes.order, self.ends
        columns = [f"to_{name}" for name in ends] + [f"predicted {self.classes.names[c]}" for c in order] + ["attack"]
        shares = np.column_stack([*ends.values(), self.shares[:, order]])
        return self.classes.csv(columns, lambda c: [[*map(_percent, shares[c]), self.attack]], self.attack)


@dataclass(frozen=True)
class Norms:
    """Norms of features and of class vectors.

    Attributes:
        feature: mean L2 norm of each class's features over its clean test images, shape [C].
        spread: their standard deviation (of the images at hand, no n - 1), shape [C].
        head: the class vectors.
    """

    classes: Classes
    feature: np.ndarray
    spread: np.ndarray
    head: Head

    def csv(self) -> str:
        """One line per class; empty where there is no such norm."""
        columns = ["feature_norm", "feature_norm_std", "deployed_weight_norm", "stored_weight_norm", "head"]
        values = [self.feature, self.spread, self.head.deployed, self.head.stored]
        return self.classes.csv(
            columns, lambda c: [[*("" if v is None else f"{v[c]:.6g}" for v in values), self.head.kind]]
        )


@dataclass(frozen=True)
class Margins:
    """Quantiles of the margins, in the units of the network's own logits: networks do not compare by them.

    Attributes:
        clean, attacked: the ``QUANTILES`` of each class's margins, shape [C, 5].
        attack: its name.
    """

    classes: Classes
    clean: np.ndarray
    attacked: np.ndarray
    attack: str

    def csv(self) -> str:
        """Two lines per class: on clean images, and under the attack."""
        columns = ["images", *(f"q{100 * q:02.0f}" for q in QUANTILES)]
        both = {"clean": self.clean, self.attack: self.attacked}
        return self.classes.csv(
            columns,
            lambda c: [[name, *(f"{v:.6g}" for v in values[c])] for name, values in both.items()],
            self.attack,
        )


@dataclass(frozen=True)
class Analysis:
    """Everything about one network; ``norms`` is None if its deployed model has no one backbone."""

    run: RunSection
    errors: Errors
    confusion: Confusion
    norms: Norms | None
    margins: Margins

    @property
    def parts(self) -> dict[str, Errors | Confusion | Norms | Margins]:
        """The analyses by name, those there are."""
        parts: dict[str, Errors | Confusion | Norms | Margins] = {"errors": self.errors, "confusion": self.confusion}
        if self.norms is not None:
            parts["norms"] = self.norms
        return {**parts, "margins": self.margins}


def analysis_of(
    run: RunSection, classes: Classes, seen: Observations, worst_case: tuple[np.ndarray, np.ndarray] | None = None
) -> Analysis:
    """The four analyses of what was seen.

    Args:
        run: what the network is a result of.
        classes: of the images seen.
        seen: every class has an image among them.
        worst_case: which of the images are correct as they are, and under every attack of the suite, bool, shape [T]
            each; they then split the error.
    """
    labels, of_class = seen.labels, [np.flatnonzero(seen.labels == c) for c in range(len(classes.names))]
    if worst_case is None:
        attack, clean = seen.attack, seen.clean.predicted == labels
        robust = clean & (seen.attacked.predicted == labels)
    else:
        attack, (clean, robust) = UNION, worst_case
    correct, standing = metrics_from_bits(np.stack([clean, robust]), labels, classes.train_counts).per_class
    confused = np.stack([np.bincount(seen.attacked.predicted[i], minlength=len(of_class)) / len(i) for i in of_class])
    norms = None
    if seen.feature_norms is not None and seen.head is not None:
        values = [seen.feature_norms[i] for i in of_class]
        norms = Norms(classes, np.array([v.mean() for v in values]), np.array([v.std() for v in values]), seen.head)
    quantiles = [
        np.stack([np.quantile(answers.margins[i], QUANTILES) for i in of_class])
        for answers in (seen.clean, seen.attacked)
    ]
    return Analysis(
        run,
        Errors(classes, 1 - correct, correct - standing, attack),
        Confusion(classes, confused, seen.attack),
        norms,
        Margins(classes, quantiles[0], quantiles[1], seen.attack),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
