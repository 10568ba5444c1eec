"""Attacks: pure functions from (model, x, y) to adversarial examples. Importing this does not import torch."""

from ltrobust_bench.attacks.registry import attacks

__all__ = ["attacks"]
