"""What a log of AutoAttack says: accuracies after each of its attacks, and of how many images. It holds no verdict on a
single image, so nothing per class follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ltrobust_bench.errors import UsageError
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.scores.reliability import FEW

LARGEST = 50_000_000
"""Bytes of a log."""

INITIAL = re.compile(r"initial (?:clean )?accuracy: ([\d.]+)%")
BATCH = re.compile(r"([a-z-]+) - \d+/\d+ - (\d+) out of (\d+) successfully perturbed")
AFTER = re.compile(r"robust accuracy after ([A-Z0-9-]+): ([\d.]+)%")
RADIUS = re.compile(r"max (?:(\w+) )?perturbation(?: \((\w+)\))?: ([\d.]+)")
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


@dataclass(frozen=True)
class Log:
    """One evaluation.

    Attributes:
        images: how many were attacked, from the counts of the first attack's batches; None if they are not printed.
        clean: accuracy before, in [0, 1].
        after: accuracy after each attack, in their order.
        radius: largest perturbation, as printed; None if it is not.
        threat_model: Linf, L2 or L1; empty if it is not printed.
    """

    images: int | None
    clean: float
    after: dict[str, float]
    radius: float | None
    threat_model: str

    @property
    def standard(self) -> bool:
        """Whether all four attacks of the standard version were run."""
        return tuple(self.after) == STANDARD

    def remarks(self, epsilon: float, threat_model: str) -> list[str]:
        """What a reader should know of it, one line each.

        Args:
            epsilon, threat_model: of the protocol that it is compared with.
        """
        found = []
        if not self.standard:
            found.append(f"not the standard version ({', '.join(STANDARD)}): {', '.join(self.after) or 'no attack'}")
        if self.radius is not None and abs(self.radius - epsilon) > 0.01 * epsilon:
            found.append(f"radius {self.radius:g}, the protocol has {epsilon:.5g}: not comparable with its board")
        if self.threat_model and self.threat_model != threat_model:
            found.append(f"threat model {self.threat_model}, the protocol has {threat_model}")
        names = list(self.after)
        if "square" in names and (place := names.index("square")):
            gain = self.after[names[place - 1]] - self.after["square"]
            if gain > FEW:
                found.append(f"Square breaks another {100 * gain:.1f} points: gradients may be masked")
        return found


def read_log(path: Path) -> Log:
    """The last evaluation in a log of AutoAttack.

    Raises:
        UsageError: if there is none, or its numbers contradict one another.
    """
    try:
        text = read_bytes(path, LARGEST).decode("utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"no log at {path} ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(f"{path} is no log of AutoAttack: {error}.") from None
    starts = list(INITIAL.finditer(text))
    if not starts:
        raise UsageError(f"{path} is no log of AutoAttack: it has no line `initial accuracy: ...%`.")
    text, clean = text[starts[-1].start() :], float(starts[-1][1]) / 100
    after = {name.lower(): float(share) / 100 for name, share in AFTER.findall(text)}
    values = [clean, *after.values()]
    if max(values) > 1 or any(later > earlier + 1e-9 for earlier, later in zip(values, values[1:], strict=False)):
        raise UsageError(f"{path}: accuracy rises from one attack to the next, so this is not one evaluation.")
    batches = BATCH.findall(text)
    first = sum(int(total) for name, _, total in batches if name == batches[0][0])
    radius = RADIUS.search(text)
    return Log(
        round(first / clean) if batches and clean else None,
        clean,
        after,
        float(radius[3]) if radius else None,
        (radius[1] or radius[2] or "") if radius else "",
    )
