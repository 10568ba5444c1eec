"""Rows of small numbers, one an image, as base64 text: whether it is classified correctly (one bit), which of
AutoAttack's attacks broke it first (three)."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from ltrobust_bench.errors import RecordError


def pack(values: np.ndarray, width: int) -> str:
    """``values`` (non-negative integers below 2**width, shape [T]) as base64 of ``width`` bits each."""
    flat = (values.astype(np.uint8)[:, None] >> np.arange(width - 1, -1, -1, dtype=np.uint8)) & 1
    return base64.b64encode(np.packbits(flat.astype(np.uint8)).tobytes()).decode()


def packed_bytes(text: str, count: int, width: int) -> bytes:
    """The bytes that :func:`pack` wrote as ``text``.

    Raises:
        RecordError: if ``text`` is not the packing of ``count`` values.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise RecordError("bits are not base64") from None
    if base64.b64encode(raw).decode() != text:  # another way to write the same bytes
        raise RecordError("bits are not base64 as it is written")
    whole, rest = divmod(count * width, 8)
    if len(raw) != whole + (rest > 0) or (rest and raw[-1] & (0xFF >> rest)):
        raise RecordError(f"bits hold {8 * len(raw)} places, {count} images of {width} bits were expected")
    return raw


def unpack(text: str, count: int, width: int) -> np.ndarray:
    """The inverse of :func:`pack`: uint8, shape [count].

    Raises:
        RecordError: if ``text`` is not the packing of ``count`` values.
    """
    places = np.unpackbits(np.frombuffer(packed_bytes(text, count, width), dtype=np.uint8), count=count * width)
    values: np.ndarray = places[::width]
    for place in range(1, width):
        values = values << 1 | places[place::width]
    return values


def count_by_class(bits: np.ndarray, images: Sequence[int]) -> np.ndarray:
    """How many bits of each class are set.

    Args:
        bits: bool or 0 and 1 in uint8, shape [..., T], ordered by label.
        images: of each label; they add up to T.

    Returns:
        uint32, shape [..., C].
    """
    sizes = np.asarray(images)
    starts, seen = np.cumsum(sizes) - sizes, sizes > 0
    counts = np.zeros((*bits.shape[:-1], len(sizes)), dtype=np.uint32)
    counts[..., seen] = np.add.reduceat(bits.view(np.uint8), starts[seen], axis=-1, dtype=np.uint32)
    return counts
