"""A data set of somebody else: noisy stripes, one position per class. No torch here: listings import this module."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltrobust_bench.data import DatasetSpec, Source
from ltrobust_bench.protocol import DatasetTerms

CLASSES, SIZE = 4, 8
THIRD_DATA = DatasetSpec(
    "third-data",
    "noisy stripes (8x8, grey), drawn when they are read",
    "ltbench_example.data:stripes",
    classes=CLASSES,
    shape=(1, SIZE, SIZE),
    terms=DatasetTerms(
        epsilon="0.1", imbalance_ratio=4.0, profile="exp", model="third-net", crop_padding=0, flip=False
    ),
)


def stripes(_: Path | None) -> Source:
    """40 training and 12 test images of each class."""
    generator = np.random.default_rng(0)

    def part(of_each: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(CLASSES), of_each)
        images = generator.integers(0, 100, (len(labels), 1, SIZE, SIZE), dtype=np.uint8)
        images[np.arange(len(labels)), :, 2 * labels] += 150
        return images, labels

    return Source(*part(40), *part(12), tuple(f"row {2 * label}" for label in range(CLASSES)))
