"""Attacks: a file for each kind, a threat model for each ball. Importing this does not import torch."""

from ltrobust_bench.attacks.registry import attacks

__all__ = ["attacks"]
