"""What a race leaves of a run that it gave up: an upper bound of its accuracy, below the cut of its board. No torch.

It is no record: nothing of it is ranked, and a sweep without ``--race`` evaluates the run in full. It holds for one
network, one rank and boards whose cut is no lower: see :meth:`Bound.holds`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from ltrobust_bench.files import read_large, write_text
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.terms import Strict

FILE = "bound.json"


class Bound(Strict):
    """An upper bound of a run's balanced worst-case accuracy, fractions.

    Attributes:
        accuracy: balanced, under the attack alone; the worst case over the suite is at most about that.
        high: upper end of its 95 % interval (Wilson).
        cut: what the entry at ``rank`` of the board had when the run was given up.
        rank: whose accuracy was to be reached.
        attack: by which it was found.
        weights_sha256: of the network, as its file states it.
    """

    accuracy: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    cut: float = Field(ge=0, le=1)
    rank: int = Field(ge=1)
    attack: str
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    def holds(self, folder: Path, rank: int, cut: float | None = None) -> bool:
        """Whether the run in a folder is out of a race for a rank.

        Args:
            cut: of the board as it is now; None: it is not known to be another than when the run was given up.
        """
        below = self.high < (self.cut if cut is None else cut)
        return below and self.rank == rank and self.weights_sha256 == network_sha256(folder)

    @property
    def text(self) -> str:
        """In words."""
        return f"\u2264 {100 * self.accuracy:.1f} ({self.attack}), below {100 * self.cut:.1f} of rank {self.rank}"


def read_bound(folder: Path) -> Bound | None:
    """What a race left in a run folder; None: nothing, or nothing readable."""
    try:
        return Bound.model_validate_json(read_bytes(folder / FILE))
    except (OSError, ValueError):
        return None


def network_sha256(folder: Path) -> str:
    """The digest of its tensors that the network in a run folder states in its header; empty: there is none."""
    try:
        content = read_large(folder / "model.safetensors")
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return str(json.loads(header["__metadata__"]["ltbench"])["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_bound(bound: Bound, folder: Path) -> None:
    """Leave it in a run folder."""
    write_text(folder / FILE, bound.model_dump_json(indent=1) + "\n")
