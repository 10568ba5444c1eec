"""Reading records fast: a file that is letter by letter what we write is taken as it is, and nothing else is."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from record_factory import synthetic_record

from ltrobust_bench.errors import RecordError
from ltrobust_bench.records import io
from ltrobust_bench.records.io import dumps, find_records, read_record, record_files
from ltrobust_bench.records.schema import Cost, Record, Result, Standing, Work, condense
from ltrobust_bench.terms import canonical_digest

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


def test_what_boards_ask_for_is_the_same_from_one_record_and_from_many_and_outlives_the_bits():
    records = [synthetic_record(seed=seed, tests_per_class=tests) for tests in (20, 3) for seed in range(3)]
    alone = [(r.id, r.entry_key, r.correct, r.correct_by_class, r.packed("union").tolist()) for r in records]
    many = [record.model_copy() for record in records]
    for record in many:
        record.__dict__ = {name: record.__dict__[name] for name in Record.model_fields}
    condense(many)
    for record, fresh, found in zip(many, records, alone, strict=True):
        assert "_decoded" not in record.__dict__
        handed_over = pickle.loads(pickle.dumps(record))
        assert "_decoded" not in handed_over.__dict__ and handed_over == fresh
        r = handed_over
        assert (r.id, r.entry_key, r.correct, r.correct_by_class, r.packed("union").tolist()) == found
        assert [list(r.bits(name)) for name in r.rows] == [list(fresh.bits(name)) for name in r.rows]


def test_counts_are_sums_of_bits_and_fall_with_what_others_broke():
    record = synthetic_record(tests_per_class=3)
    everything = {name: record.bits(name) for name in record.rows}
    assert record.correct == {name: bits.sum() for name, bits in everything.items()}
    by_class = np.frombuffer(record.correct_by_class, dtype=np.uint32).reshape(len(record.rows), -1)
    assert [list(row) for row in by_class] == [list(bits.reshape(-1, 3).sum(axis=1)) for bits in everything.values()]
    broken = everything["union"] & (np.arange(len(everything["union"])) < 9)
    judged = record.judged(Standing(broken=broken))
    assert judged.correct == record.correct | {"union": (everything["union"] & ~broken).sum()}
    assert record.correct["union"] == everything["union"].sum() and judged == record


def test_seeds_share_the_digest_of_everything_but_seed_and_base_run():
    """Many runs are asked in turn, as the texts that they share are kept."""
    changes = [{}, {"seed": 1}, {"model": "other"}, {"overrides": {"seed": 3}}, {"base_key": "c" * 64, "seed": 7}]
    runs = [synthetic_record(**change).run for change in [*changes, *changes]]
    for run in runs:
        values = run.model_dump(mode="json", exclude_defaults=True)
        shared = {name: value for name, value in values.items() if name not in ("seed", "base_key")}
        assert run.digests() == (run.key(), canonical_digest(shared))
        assert run.key() == canonical_digest(values)
    entries = [run.digests()[1] for run in runs]
    assert entries[0] == entries[1] == entries[4] and len(set(entries)) == 3


@pytest.mark.parametrize("given", [{"forwards": 1, "backwards": 2, "seconds": 3.0}])
def test_what_was_given_is_known_after_handing_over(given):
    work = Work(**given)
    cost = Cost(training=work, evaluation=work, optimizer_steps=1)
    for model in (work, cost, cost.model_copy(update={"base": work})):
        again = pickle.loads(pickle.dumps(model))
        assert again == model and again.model_fields_set == model.model_fields_set


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
