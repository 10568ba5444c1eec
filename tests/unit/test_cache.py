"""What is remembered of records: boards are the same with it, without it, and whatever happened to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.records import cache
from ltrobust_bench.records.io import dumps, find_records
from ltrobust_bench.records.schema import Record, Tally
from ltrobust_bench.report import aggregate, tables

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "records"


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """The file that is remembered of the committed records, and how many bits are checked after that."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    find_records([COMMITTED])
    (path,) = (tmp_path / "cache").iterdir()
    return path


@pytest.fixture
def checked(monkeypatch):
    """The records whose bits are checked, one place each."""
    found, check = [], Record._check_bits
    monkeypatch.setattr(Record, "_check_bits", lambda self: (found.append(self), check(self)))
    return found


def test_records_seen_before_are_the_same_and_not_checked_again(remembered, monkeypatch, checked):
    again, problems = find_records([COMMITTED])
    assert checked == [] and problems == []
    monkeypatch.setattr(cache, "recall", lambda folder: {})
    monkeypatch.setattr("ltrobust_bench.records.io.recall", lambda folder: {})
    fresh, _ = find_records([COMMITTED])
    assert len(checked) == len(fresh) > 100
    assert again == fresh and [dumps(r) for r in again] == [dumps(r) for r in fresh]
    for a, b in zip(again, fresh, strict=True):
        assert a.model_fields_set == b.model_fields_set
        assert all(np.array_equal(getattr(a.tally, f.name), getattr(b.tally, f.name)) for f in fields(Tally))
    assert tables.texts(aggregate.boards(again)) == tables.texts(aggregate.boards(fresh))


def test_a_changed_byte_is_another_file(tmp_path, checked):
    path = tmp_path / "records" / "a.json"
    path.parent.mkdir()
    text = dumps(synthetic_record())
    path.write_text(text)
    (first,), _ = find_records([path.parent])
    path.write_text(text.replace('"bits": {', '"bits": { '))
    checked.clear()
    (second,), _ = find_records([path.parent])
    assert checked == [second] and second == first
    digit = text.index('"digest": "') + 11
    path.write_text(text[:digit] + ("0" if text[digit] != "0" else "1") + text[digit + 1 :])
    records, (problem,) = find_records([path.parent])
    assert records == [] and "result.digest" in problem


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\xff\n" + d, lambda d: d[1:]]
)
def test_what_is_damaged_counts_as_nothing_and_is_written_anew(remembered, checked, damage):
    whole = remembered.read_bytes()
    remembered.write_bytes(damage(whole))
    records, problems = find_records([COMMITTED])
    assert len(checked) == len(records) > 100 and problems == []
    assert remembered.read_bytes() == whole


def test_any_changed_byte_is_damage(remembered):
    whole = remembered.read_bytes()
    for place in range(0, len(whole), len(whole) // 50):
        changed = bytearray(whole)
        changed[place] ^= 1
        remembered.write_bytes(changed)
        assert cache.recall(COMMITTED) == {}, place


def test_what_other_code_found_out_does_not_count(remembered, monkeypatch):
    assert cache.recall(COMMITTED)
    monkeypatch.setattr(cache, "_code", lambda: "0" * 64)
    assert cache.recall(COMMITTED) == {}


def test_what_is_gone_is_forgotten(tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    for seed in (0, 1):
        (folder / f"{seed}.json").write_text(dumps(synthetic_record(seed=seed)))
    find_records([folder])
    assert len(cache.recall(folder)) == 2
    (folder / "0.json").unlink()
    find_records([folder])
    assert len(cache.recall(folder)) == 1


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    records, problems = find_records([COMMITTED])
    assert len(records) > 100 and problems == [] and cache.recall(COMMITTED) == {}


def test_processes_that_write_at_once_leave_one_whole_file(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    tallies = [{str(n): synthetic_record(seed=seed).tally for n in range(50)} for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda some: [cache.remember(COMMITTED, some) for _ in range(10)], tallies))
    assert len(cache.recall(COMMITTED)) == 50 and len(list(tmp_path.iterdir())) == 1
