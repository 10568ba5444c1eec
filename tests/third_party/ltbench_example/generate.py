"""Extra training data of somebody else: each class's mean image in the long-tailed split, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltrobust_bench.plan.request import Request


def generate(dataset: str, file: Path, of_each: int = 10) -> None:
    """Draw images of each class from what the *split* shows of it, so that the declaration says ``saw = "split"``."""
    task = Request("at", dataset).task()
    chosen, generator = task.split.train, np.random.default_rng(0)
    pixels, known = task.source.train_pixels(chosen), task.source.train_labels[chosen]
    means = np.stack([pixels[known == label].mean(axis=0) for label in range(task.classes)])
    labels = np.repeat(np.arange(task.classes), of_each)
    images = means[labels] + generator.normal(0, 20, (len(labels), *pixels.shape[1:]))
    np.savez(file, images=images.round().clip(0, 255).astype(np.uint8), labels=labels)
