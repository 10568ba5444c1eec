"""Two kinds of extra training data for digits-lt, as two entries of the public board use them.

    python examples/extra_training_data.py results/extra

`averages` was generated from the long-tailed split alone: of each class 50 averages of two of its images. `left-out` is what
the cut took away, so that it brings the tail back: an entry with it says how much such a leak is worth. Each goes into an
.npz file, and a declaration beside it states what it is; `ltbench run --extra-data results/extra/averages.toml` uses it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from ltrobust_bench.plan.request import Request

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
task = Request("at", "digits-lt").task()
known = task.source.train_labels


def keep(name: str, images: np.ndarray, labels: np.ndarray, **stated: str) -> None:
    """Images, uint8 [M, 1, 8, 8], their labels [M], and what is stated of them."""
    np.savez_compressed(folder / f"{name}.npz", images=images, labels=labels)
    said = [part for word, value in stated.items() for part in (f"--{word}", value)]
    subprocess.run(["ltbench", "data", "declare", "digits-lt", folder / f"{name}.npz", "--force", *said], check=True)


generator = np.random.default_rng(0)
labels = np.repeat(np.arange(task.classes), 50)
pairs = np.stack(
    [generator.choice(task.split.train[known[task.split.train] == label], 2, replace=False) for label in labels]
)
first, second = (task.source.train_pixels(chosen).astype(np.uint16) for chosen in pairs.T)
averages = ((first + second) // 2).astype(np.uint8)
keep(
    "averages", averages, labels, kind="generated", saw="split", share="0.3", maker="averages of two images of a class"
)

left_out = np.setdiff1d(np.arange(len(known)), task.split.train)
images = task.source.train_pixels(left_out)
keep(
    "left-out",
    images,
    known[left_out],
    kind="real",
    saw="balanced",
    share="0.3",
    maker="the images that the cut took away",
)
