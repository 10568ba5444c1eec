"""Rows of small numbers as text: what was packed comes back, and what does not fit is refused."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from ltrobust_bench.errors import RecordError
from ltrobust_bench.scores.bits import count_by_class, pack, packed_bytes, unpack


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 500])
def test_unpacking_undoes_packing(count, width):
    values = np.random.default_rng(count).integers(0, 2**width, count)
    assert (unpack(pack(values, width), count, width) == values).all()


@pytest.mark.parametrize(
    "text", ["AAA", "AAA=\n", "A A=", "AAAA===", "AA-A", "ÄAAA", "====", "AA=A", "AAAA=AAA", "AAB="]
)
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
