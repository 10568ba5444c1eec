"""What a finished network says of pictures, and how far an answer can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ltrobust_bench.data.pixels import pixels_of
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.errors import UsageError
from ltrobust_bench.scores.intervals import wilson

if TYPE_CHECKING:
    from ltrobust_bench.verbs.loading import LoadedModel

POOR = 0.5
"""Share of a class's test images that withstand every attack below which a prediction of that class is warned of."""
BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        name: of the most probable class.
        probabilities: by class, the most probable first.
        robust: share of that class's test images that withstand every attack; None: the run was not attacked.
        tested: how many test images that is a share of.
    """

    name: str
    probabilities: dict[str, float] = field(repr=False)
    robust: float | None = None
    tested: int = 0

    @property
    def probability(self) -> float:
        """Of the most probable class."""
        return self.probabilities[self.name]

    @property
    def warning(self) -> str:
        """Why the answer is not to be relied on where somebody may have changed the image; empty: nothing known."""
        if self.robust is None:
            return ""
        if self.robust >= POOR:
            least = float(wilson(self.robust * self.tested, self.tested)[0])
            few = f"{self.robust:.0%} of {self.tested} test images of class {self.name!r} withstand the attacks, which "
            few += f"is not told apart from {least:.0%}: test on more (--test-share, --folds)"
            return few if least < POOR else ""
        return (
            f"only {self.robust:.0%} of {self.tested} test images of class {self.name!r} withstand the attacks: "
            f"somebody who changes an image a little can change this answer"
        )

    def best(self, count: int = 3) -> str:
        """The most probable classes: ``cat 87.2 %, dog 10.1 %``."""
        shown = list(self.probabilities.items())[:count]
        return ", ".join(f"{name} {100 * value:.1f} %" for name, value in shown)

    def __str__(self) -> str:
        return self.best()


def predict(loaded: LoadedModel, images: Any) -> Prediction | list[Prediction]:
    """What a network says of a picture, or of each of several.

    Args:
        images: a path, a PIL image, or an array (see :func:`~ltrobust_bench.data.pixels.pixels_of`); or a list of such,
            or a batch of arrays [B, ...], for which there is a list.

    Raises:
        DataError: for a file that is no picture.
        UsageError: for an array that is not what the network takes.
    """
    shape = dataset_spec(loaded.run.dataset).shape
    several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
    batches = [pixels_of(image, shape) for image in (images if isinstance(images, (list, tuple)) else [images])]
    if not batches:
        raise UsageError("no image was given.")
    found = _predictions(loaded, np.concatenate(batches))
    return found if several else found[0]


def _predictions(loaded: LoadedModel, pixels: np.ndarray) -> list[Prediction]:
    with torch.no_grad():
        parts = [loaded.model(torch.from_numpy(part).to(loaded.device)) for part in _parts(pixels)]
    shares = torch.cat(parts).double().softmax(dim=1).cpu().numpy()
    names, record = loaded.class_names, loaded.record()
    tested = [] if record is None else record.run.test_counts
    robust = [] if record is None else record.correct[-1].tolist()
    found = []
    for row in shares:
        order = np.argsort(-row, kind="stable").tolist()
        first, known = order[0], record is not None and tested[order[0]] > 0
        found.append(
            Prediction(
                names[first],
                {names[c]: float(row[c]) for c in order},
                robust[first] / tested[first] if known else None,
                tested[first] if known else 0,
            )
        )
    return found


def _parts(pixels: np.ndarray) -> Sequence[np.ndarray]:
    return [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
