"""Arithmetic as a record states it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """float32 convolutions and matrix products on a GPU without TF32, which torch allows by default for
    convolutions; what was set before comes back. ``fp32`` in a record means this."""
    matmul: Any = torch.backends.cuda.matmul
    convolution: Any = torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):  # torch 2.9 and newer; its old switches must not be mixed with these
        places, name, off = (matmul, convolution.conv), "fp32_precision", "ieee"
    else:
        places, name, off = (matmul, convolution), "allow_tf32", False  # type: ignore[assignment]
    before = [getattr(place, name) for place in places]
    for place in places:
        setattr(place, name, off)
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            setattr(place, name, value)
