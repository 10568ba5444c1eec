"""What numbers in a file are about: which weights, which images, which protocol, which attack. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

COLUMNS = (
    "weights_sha256",
    "dataset",
    "train_sha256",
    "test_sha256",
    "protocol",
    "protocol_digest",
    "attack_terms",
)


class Terms(Protocol):
    """An attack's terms, typed."""

    name: str

    def model_dump(self, *, mode: str, exclude_none: bool) -> dict[str, Any]: ...


@dataclass(frozen=True)
class About:
    """What a table of an evaluation rests on; its columns stand in every row of the table.

    Attributes:
        weights_sha256: digest of the model's tensors; for a model without tensors that of none.
        dataset: name.
        train_sha256, test_sha256: digests of the split: the images that define the classes' sizes, and those attacked.
        protocol, protocol_digest: name, and digest of what it says of this data set.
        attacks: terms of each attack by its name, in words.
    """

    weights_sha256: str
    dataset: str
    train_sha256: str
    test_sha256: str
    protocol: str
    protocol_digest: str
    attacks: Mapping[str, str] = field(default_factory=dict)

    def cells(self, attack: str = "") -> list[str]:
        """The cells of ``COLUMNS`` for a row under ``attack``."""
        terms = self.attacks.get(attack, "")
        own = (self.weights_sha256, self.dataset, self.train_sha256, self.test_sha256)
        return [*own, self.protocol, self.protocol_digest, terms]


def columns_of(about: About | None) -> Iterable[str]:
    """The columns that a table gets; none if nothing is known."""
    return () if about is None else COLUMNS


def cells_of(about: About | None, attack: str = "") -> list[str]:
    """The cells of :func:`columns_of`."""
    return [] if about is None else about.cells(attack)


def in_words(attack: Terms, epsilon: float, threat_model: str) -> str:
    """An attack's terms in one cell, such as ``pgd Linf epsilon=0.15 steps=20 step_size=epsilon/4 restarts=1``."""
    stated = attack.model_dump(mode="json", exclude_none=True)
    kind = stated.pop("kind")
    stated.pop("name", None)
    return " ".join(
        [str(kind), threat_model, f"epsilon={epsilon:.6g}", *(f"{name}={value}" for name, value in stated.items())]
    )
