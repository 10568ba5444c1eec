"""Two kinds of extra training data for digits-lt, as two entries of the public board use them.

    python examples/extra_training_data.py results/extra

`averages` was generated from the long-tailed split alone: of each class 50 averages of two of its images. `left-out`
is what the cut took away, so that it brings the tail back: an entry with it says what such a leak is worth. Each is an
.npz file with a declaration beside it: `ltbench run --method at --dataset digits-lt --extra-data averages`.
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
split, known = task.split.train, task.source.train_labels


def keep(images: np.ndarray, labels: np.ndarray, name: str, kind: str, saw: str, maker: str) -> None:
    """Images, uint8 [M, 1, 8, 8], their labels [M], and what is stated of them."""
    file = folder / f"{name}.npz"
    np.savez_compressed(file, images=images, labels=labels)
    stated = ["--kind", kind, "--saw", saw, "--maker", maker, "--share", "0.3", "--force"]
    subprocess.run(["ltbench", "data", "declare", "digits-lt", file, *stated], check=True)


generator = np.random.default_rng(0)
labels = np.repeat(np.arange(task.classes), 50)
pairs = np.stack([generator.choice(split[known[split] == label], 2, replace=False) for label in labels])
first, second = (task.source.train_pixels(chosen).astype(np.uint16) for chosen in pairs.T)
averages = ((first + second) // 2).astype(np.uint8)
keep(averages, labels, "averages", "generated", "split", "averages of two images of a class")

left_out = np.setdiff1d(np.arange(len(known)), split)
images = task.source.train_pixels(left_out)
keep(images, known[left_out], "left-out", "real", "balanced", "the images that the cut took away")
