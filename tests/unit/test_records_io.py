"""Reading records fast: a file that is letter by letter what we write is taken as it is, and nothing else is."""

from __future__ import annotations

import base64
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from record_factory import synthetic_record

from ltrobust_bench.errors import RecordError
from ltrobust_bench.protocol.spec import canonical_digest
from ltrobust_bench.records import io
from ltrobust_bench.records.bits import pack, packed_bytes, unpack
from ltrobust_bench.records.io import dumps, find_records, read_record, record_files
from ltrobust_bench.records.schema import Result

RESULTS = Path(__file__).resolve().parents[2] / "results"
WRITTEN = dumps(synthetic_record()).encode()


def read(tmp_path, data):
    path = tmp_path / "record.json"
    path.write_bytes(data)
    return read_record(path)


def test_what_we_wrote_is_not_looked_through_again(tmp_path, monkeypatch):
    """Records from before fields were added included; they are all the same either way."""
    files = sorted((RESULTS / "records").rglob("*.json"))[::10]
    with monkeypatch.context() as patched:
        patched.setattr(io, "parse_json", lambda data: pytest.fail("looked through"))
        fast = [read_record(path) for path in files]
        assert read(tmp_path, WRITTEN) == synthetic_record()
    monkeypatch.setattr(io, "_as_written", lambda data: None)
    assert [read_record(path) for path in files] == fast


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ('"forwards": 1000000,', '"forwards": 1000000000000000000,', "19 digits"),
        ('"forwards": 1000000,', '"forwards": 1000000, "forwards": 1000000,', "twice"),
        ('"device": "cpu"', '"device": "c\x7fpu"', "do not print"),
        ('"device": "cpu"', '"device": "c\u202epu"', "do not print"),
        ('"device": "cpu"', '"device": "c\\u0000pu"', "do not print"),
        ('"schema_version": 1', '"schema_version": true', "schema_version"),
        ('"schema_version": 1', '"schema_version": 1.0', "schema_version"),
        ('"seconds": 60.0', '"seconds": NaN', "finite"),
        ('"seconds": 60.0', '"seconds": 1e999', "finite"),
        ('"seconds": 60.0', '"seconds": 1e308', "seconds"),
    ],
)
def test_tricks_are_found_in_files_that_are_otherwise_as_written(tmp_path, ours, theirs, words):
    assert ours in WRITTEN.decode()
    with pytest.raises(RecordError, match=words):
        read(tmp_path, WRITTEN.decode().replace(ours, theirs, 1).encode())


@pytest.mark.parametrize("change", [lambda d: d.replace(b"\n ", b"\n   "), lambda d: d + b"\n", lambda d: d[:-1]])
def test_layout_does_not_matter(tmp_path, change):
    assert read(tmp_path, change(WRITTEN)) == synthetic_record()


def test_a_record_is_the_same_whatever_was_asked_of_it():
    asked, fresh = synthetic_record(), synthetic_record()
    asked.bits("union"), asked.id
    assert asked == fresh and pickle.loads(pickle.dumps(asked)) == fresh and dumps(asked) == dumps(fresh)


def test_the_digest_is_the_canonical_one():
    result = synthetic_record().result
    for broken_by in (result.broken_by, None):
        whole = {"bits": result.bits, "broken_by": broken_by}
        assert Result.digest_of(result.bits, broken_by) == canonical_digest(whole)


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


def test_the_same_run_in_two_places_counts_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_bytes(WRITTEN)
    assert len(find_records([tmp_path])[0]) == 1


def filed(results, **run):
    record = synthetic_record(**run)
    path = results / "records" / record.run.record_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(record))
    return path


def test_a_plan_among_filed_records_hides_none_of_them(tmp_path):
    """Beside the records of a method, of a data set, and of a protocol."""
    path = filed(tmp_path)
    for folder in list(path.parents)[:3]:
        (folder / "plan.json").write_text("{}")
        assert path in list(record_files(tmp_path / "records"))
        (folder / "plan.json").unlink()
    run = tmp_path / "runs" / "at"
    run.mkdir(parents=True)
    for name in ("plan.json", "record.json", "meta.json"):
        (run / name).write_bytes(WRITTEN)
    assert [p.name for p in record_files(tmp_path / "runs")] == ["record.json"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    path, closed = filed(tmp_path), filed(tmp_path, method="closed").parent
    scandir, access = os.scandir, os.access

    def listed(folder):
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", listed)
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != closed and access(p, mode))
    records, problems = find_records([tmp_path / "records"])
    assert [r.id for r in records] == [read_record(path).id]
    assert problems == [f"{closed} is no record: it is a folder that cannot be read."]
    assert find_records([tmp_path / "nowhere"]) == ([], [])


def test_the_name_of_all_attacks_together_is_no_attack(tmp_path):
    bits = dict.fromkeys(("clean", "pgd-20", "union"), [True] * 30)
    with pytest.raises(ValidationError, match="must not hold 'union'"):
        synthetic_record(bits, train_counts=[9, 6, 3])


@pytest.mark.parametrize("folder", ["retractions", "verifications"])
def test_names_of_statements_are_escaped(tmp_path, folder):
    filed(tmp_path)
    (tmp_path / folder).mkdir()
    for name in (b"\x1b[31mred.json", b"\xff.json"):
        Path(os.fsdecode(os.fsencode(tmp_path / folder) + b"/" + name)).write_text("{}")
    _, problems = find_records([tmp_path / "records"])
    assert len(problems) == 2 and all(problem.isprintable() for problem in problems)


def test_a_statement_that_two_places_lead_to_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filed(Path("results"))
    for folder in ("retractions", "verifications"):
        (Path("results") / folder).mkdir()
        (Path("results") / folder / "x.json").write_text("{}")
    assert len(find_records([Path("results/records")], [Path("results")])[1]) == 2
