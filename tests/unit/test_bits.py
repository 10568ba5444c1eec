"""Rows of small numbers as text: what was packed comes back, and what does not fit is refused."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from ltrobust_bench.errors import RecordError
from ltrobust_bench.scores.bits import broken_by_fourth, count_by_class, pack, packed_bytes, unpack


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 500])
def test_unpacking_undoes_packing(count, width):
    values = np.random.default_rng(count).integers(0, 2**width, count)
    assert (unpack(pack(values, width), count, width) == values).all()


@pytest.mark.parametrize("text", ["AAA", "AAA=\n", "A A=", "AAAA===", "AA-A", "ÄAAA", "====", "AA=A", "AAAA=AAA"])
def test_what_is_no_base64_is_no_packing(text):
    with pytest.raises(RecordError, match="not base64"):
        packed_bytes(text, 16, 1)


def test_spare_places_are_empty_and_none_are_missing():
    assert packed_bytes(base64.b64encode(b"\xff\x80").decode(), 9, 1) == b"\xff\x80"
    for raw in (b"\xff\xc0", b"\xff", b"\xff\x80\x00"):
        with pytest.raises(RecordError, match="9 images"):
            packed_bytes(base64.b64encode(raw).decode(), 9, 1)


@pytest.mark.parametrize("images", [[3], [1, 1, 1], [8, 9, 7], [0, 5, 0, 0, 2, 0], [70_000, 3]])
def test_bits_are_counted_class_by_class(images):
    bits = np.random.default_rng(0).random((2, 3, sum(images))) < 0.7
    ends = np.cumsum(images)
    expected = np.stack([bits[..., end - n : end].sum(axis=-1) for n, end in zip(images, ends, strict=True)], axis=-1)
    assert (count_by_class(bits, images) == expected).all()
    assert (count_by_class(np.ones((1, sum(images)), dtype=bool), images) == images).all()


def packed_number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 16, 500])
def test_places_are_checked_on_their_text(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        places = rng.integers(0, 5, count)
        text = pack(places, 3)
        assert broken_by_fourth(text, packed_number(places > 0), count) == (places == 4).sum()
        other = (places > 0) ^ (np.arange(count) == rng.integers(count))
        assert broken_by_fourth(text, packed_number(other), count) is None


@pytest.mark.parametrize("place", [5, 6, 7])
def test_there_is_no_place_above_four(place):
    for at in range(16):
        places = np.where(np.arange(16) == at, place, 0)
        assert broken_by_fourth(pack(places, 3), packed_number(places > 0), 16) is None


@pytest.mark.parametrize("count", [1, 5, 8, 11])
def test_text_that_is_no_packing_of_so_many_places_fits_nothing(count):
    """Nothing is broken, so zeros in other places than those there are could pass for the right ones."""
    text = pack(np.zeros(count, dtype=int), 3)
    others = [text[:-1], text + "A", text + "AAAA", text + "=", "=" + text[1:], text.rstrip("=") + "A", text[4:]]
    others += [text[:at] + character + text[at + 1 :] for at in range(len(text)) for character in "_- \n+xÄ\0"]
    for other in others:
        assert broken_by_fourth(other, 0, count) is None
    assert broken_by_fourth(text, 0, count) == 0
