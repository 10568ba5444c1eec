"""Samplers that rebalance the classes. An epoch has as many draws as the recipe has images in its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltrobust_bench.api import Network, Outputs

Shuffle = Callable[[list[int]], Any]
"""Shuffles a list in place."""


class Cycle:
    """Goes round a list, shuffling it in place at the start of every round."""

    def __init__(self, items: list[int]) -> None:
        self.items, self.position = list(items), len(items)

    def next(self, shuffle: Shuffle) -> int:
        """The next item."""
        if self.position == len(self.items):
            self.position = 0
            shuffle(self.items)
        self.position += 1
        return self.items[self.position - 1]


class ClassAware:
    """Class-aware sampling (Shen et al., ECCV 2016; RoBal's RS): a shuffled cycle over the classes, and within
    each class a shuffled cycle over its images. The cycles go on across epochs, so they are remembered.
    """

    def __init__(self) -> None:
        self.cycles: list[Cycle] = []
        self._stored: Mapping[str, Tensor] | None = None

    def _prepare(self, labels: np.ndarray) -> None:
        classes = int(labels.max()) + 1
        lists = [list(range(classes)), *(np.flatnonzero(labels == c).tolist() for c in range(classes))]
        self.cycles = [Cycle(items) for items in lists]
        if self._stored is not None and len(self._stored["lengths"]):  # none: it had not drawn when it was saved
            self._restore(self._stored)

    def draw(self, draws: int, shuffle: Shuffle) -> list[int]:
        """The next ``draws`` indices."""
        return [self.cycles[1 + self.cycles[0].next(shuffle)].next(shuffle) for _ in range(draws)]

    def __call__(self, labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
        if not self.cycles:
            self._prepare(labels)
        return np.array(self.draw(draws, generator.shuffle), dtype=np.int64)

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        """Nothing is learned from a step."""

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        """The cycles go on."""

    def state_dict(self) -> dict[str, Tensor]:
        if not self.cycles and self._stored is not None:  # nothing was drawn since it was loaded
            return dict(self._stored)
        return {
            "items": torch.tensor([i for c in self.cycles for i in c.items], dtype=torch.int64),
            "lengths": torch.tensor([len(c.items) for c in self.cycles], dtype=torch.int64),
            "positions": torch.tensor([c.position for c in self.cycles], dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._stored, self.cycles = state, []

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        parts = state["items"].split(state["lengths"].tolist())
        for cycle, items, position in zip(self.cycles, parts, state["positions"].tolist(), strict=True):
            cycle.items, cycle.position = items.tolist(), position


def class_frequencies(counts: np.ndarray, q: float) -> np.ndarray:
    """Probability of each class proportional to n_c**q: 1 instance-balanced, 1/2 square root, 0 class-balanced
    (Kang et al., ICLR 2020, arXiv 1910.09217); [C]."""
    weights = np.asarray(counts, dtype=float) ** q
    return weights / weights.sum()


def weighted_draws(
    labels: np.ndarray, draws: int, frequencies: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """``draws`` indices with replacement: the class by ``frequencies`` [C], the image uniformly within it."""
    per_image = (frequencies / np.bincount(labels, minlength=len(frequencies)))[labels]
    return generator.choice(len(labels), size=draws, p=per_image / per_image.sum())


def balanced_subset(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices with ``per_class`` images of every class: of a larger class its first ones, of a smaller one all of
    them over and over and, to fill up, a fixed random choice; int64, shape [C * per_class]."""
    generator, chosen = np.random.default_rng(0), []
    for label in range(int(labels.max()) + 1):
        own = np.flatnonzero(labels == label)
        rounds, rest = divmod(per_class, len(own))
        fill = own[:rest] if rounds == 0 else generator.permutation(own)[:rest]
        chosen += [np.tile(own, rounds), fill]
    return np.concatenate(chosen)
