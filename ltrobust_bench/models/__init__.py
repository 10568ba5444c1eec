"""Backbones by name. Importing this does not import torch."""

from ltrobust_bench.models.registry import models

__all__ = ["models"]
