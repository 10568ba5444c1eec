"""Rows of small numbers, one an image, as base64 text: whether it is classified correctly (one bit), which of
AutoAttack's attacks broke it first (three)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pybase64

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
        raw = pybase64.b64decode(text, validate=True)
    except ValueError:
        raise RecordError("bits are not base64") from None
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
        Unsigned integers, shape [..., C].
    """
    starts, seen, kind = _classes(tuple(images))
    counts: np.ndarray = np.add.reduceat(bits.view(np.uint8), starts, axis=-1, dtype=kind)
    if seen.all():
        return counts
    found = np.zeros((*bits.shape[:-1], len(images)), kind)
    found[..., seen] = counts
    return found


@lru_cache
def _classes(images: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, type[np.unsignedinteger[Any]]]:
    """Where the classes that have images start, which those are, and a type that holds their counts: 16 bits are
    counted in half the time."""
    counts = np.asarray(images)
    seen = counts > 0
    return (np.cumsum(counts) - counts)[seen], seen, np.uint16 if counts.max() < 2**16 else np.uint32


def broken_by_fourth(broken_by: str, broken: int, count: int) -> int | None:
    """How many images the last of AutoAttack's four attacks broke, or None if ``broken_by`` does not fit.

    Args:
        broken_by: places of three bits (0 not broken, 1 to 4) as :func:`pack` writes them.
        broken: for which images they are not 0: packed bits as one number, the first byte its highest.
        count: images.
    """
    # A character of base64 is two places, so nothing has to be unpacked; that takes several times as long.
    size = -(-3 * count // 8)
    text = broken_by.rstrip("=").encode()
    if len(broken_by) != 4 * -(-size // 3) or len(text) != -(-4 * size // 3):
        return None
    try:
        found = int(text.translate(_BROKEN), 4)
    except ValueError:  # no base64, or a place above 4
        return None
    if found << 8 * -(-count // 8) != broken << 2 * len(text):
        return None
    return sum(places * text.count(character) for character, places in _FOURTH)


def _above_0(places: tuple[int, int]) -> str:
    return "x" if max(places) > 4 else str(2 * (places[0] > 0) + (places[1] > 0))


_PLACES = {base64.b64encode(bytes([value << 2]))[0]: divmod(value, 8) for value in range(64)}
"""The two places of each character."""
_BROKEN = "".join(_above_0(_PLACES.get(byte, (7, 7))) for byte in range(256)).encode()
"""For ``bytes.translate``: from a character to two bits, whether its places are above 0, as a digit; to none if one of
them is above 4, or it is no character of base64."""
_FOURTH = [(character, places.count(4)) for character, places in _PLACES.items() if max(places) == 4]
"""Characters that hold a place of 4, and how many."""
