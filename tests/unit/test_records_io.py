"""Reading records: what is refused, what follows from a record, and which files are looked at."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from record_factory import synthetic_record

from ltrobust_bench.errors import RecordError
from ltrobust_bench.records.io import dumps, find_records, read_record, record_files
from ltrobust_bench.records.schema import Record, Result, Standing
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.terms import canonical_digest

WRITTEN = dumps(synthetic_record()).encode()


def read(tmp_path, data):
    path = tmp_path / "record.json"
    path.write_bytes(data)
    return read_record(path)


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
    assert asked == fresh and dumps(asked) == dumps(fresh)


def test_the_digest_is_the_canonical_one():
    result = synthetic_record().result
    for broken_by in (result.broken_by, None):
        whole = {"bits": result.bits, "broken_by": broken_by}
        assert Result.digest_of(result.bits, broken_by) == canonical_digest(whole)


def test_counts_are_sums_of_bits_and_fall_with_what_others_broke():
    record = synthetic_record(tests_per_class=3)
    everything = {name: record.bits(name) for name in record.rows}
    attacks = [everything[name] for name in record.attacks]
    assert (everything["union"] == np.logical_and.reduce(attacks)).all()
    assert record.correct.tolist() == [bits.reshape(-1, 3).sum(axis=1).tolist() for bits in everything.values()]
    broken = everything["union"] & (np.arange(record.images) < 9)
    judged = record.judged(Standing(broken=broken))
    left = everything["union"] & ~broken
    assert (judged.bits("union") == left).all()
    assert judged.correct[-1].tolist() == left.reshape(-1, 3).sum(axis=1).tolist()
    assert (judged.correct[:-1] == record.correct[:-1]).all() and judged == record and judged.id == record.id
    assert record.correct[-1].sum() == everything["union"].sum()


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([0, 0, 0, 4, 1, 0], None),
        ([0, 0, 0, 5, 1, 0], "disagrees"),
        ([0, 0, 0, 0, 1, 0], "disagrees"),
        ([0, 0, 2, 4, 1, 0], "disagrees"),
        ([0, 0, 0, 4, 1], "6 images"),
    ],
)
def test_who_broke_an_image_fits_autoattack(places, words):
    """Images 3 and 4 are clean and not robust; image 5 is not clean."""
    bits = {"clean": [1, 1, 1, 1, 1, 0], "autoattack": [1, 1, 1, 0, 0, 0]}
    raw = synthetic_record(bits, train_counts=[9, 6, 3]).model_dump()
    raw["result"]["broken_by"] = pack(np.asarray(places), 3)
    raw["result"]["digest"] = Result.digest_of(raw["result"]["bits"], raw["result"]["broken_by"])
    if words is None:
        assert Record.model_validate(raw).tally.by_square == 1
    else:
        with pytest.raises(ValidationError, match=f"result.broken_by: .*{words}"):
            Record.model_validate(raw)


def test_seeds_share_the_digest_of_everything_but_seed_and_base_run():
    changes = [{}, {"seed": 1}, {"model": "other"}, {"overrides": {"seed": 3}}, {"base_key": "c" * 64, "seed": 7}]
    runs = [synthetic_record(**change).run for change in changes]
    for run in runs:
        values = run.model_dump(mode="json", exclude_defaults=True)
        shared = {name: value for name, value in values.items() if name not in ("seed", "base_key")}
        assert run.key() == canonical_digest(values) and run.entry_key() == canonical_digest(shared)
    entries = [run.entry_key() for run in runs]
    assert entries[0] == entries[1] == entries[4] and len(set(entries)) == 3


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
