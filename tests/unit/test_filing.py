"""The one door to the board: what is filed, what is there already, what is replaced, and what never gets in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.records.filing import file_record, filing
from ltrobust_bench.records.io import read_record
from ltrobust_bench.records.schema import Record, Result

REAL = read_record(Path(__file__).resolve().parents[1] / "historic_records" / "v1-first-small-s0-db25c435.json")


def changed(record=REAL, **sections):
    raw = record.model_dump(mode="json")
    for name, fields in sections.items():
        raw[name] |= fields
    return Record.model_validate(raw)


def another_result():
    bits = {**REAL.result.bits, "fgsm": REAL.result.bits["clean"]}
    return changed(result={"bits": bits, "digest": Result.digest_of(bits, REAL.result.broken_by)})


OTHER, ELSEWHERE = another_result(), changed(environment={"threads": 2}, status={"trials": 3})


def commit(results):
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--allow-empty", "-m", "x"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", results, *identity, *command], check=True)


def test_the_same_result_is_filed_once_whatever_the_environment(tmp_path):
    path = tmp_path / "records" / REAL.run.record_path()
    assert file_record(REAL, tmp_path) == f"filed: {path}"
    before = path.read_bytes()
    for same in (REAL, ELSEWHERE):
        assert file_record(same, tmp_path) == f"already filed: {path}" and path.read_bytes() == before


def test_only_a_submission_replaces_and_only_what_git_says_was_never_committed(tmp_path):
    path = tmp_path / "records" / REAL.run.record_path()
    file_record(REAL, tmp_path)
    with pytest.raises(RecordError, match="append-only"):
        filing(OTHER, tmp_path, replace=True)  # no git: nobody can tell
    commit_of_nothing = path.read_bytes()
    path.unlink()
    commit(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(commit_of_nothing)
    assert "No commit holds that file: `ltbench record submit` replaces it" in file_record(OTHER, tmp_path)
    assert read_record(path) == REAL
    for new in (OTHER, ELSEWHERE):
        assert "in place of one never committed" in filing(new, tmp_path, replace=True).write()
        assert read_record(path) == new
    commit(tmp_path)
    with pytest.raises(RecordError, match="append-only"):
        filing(OTHER, tmp_path, replace=True)
    assert filing(REAL, tmp_path, replace=True).write() == f"already filed: {path}" and read_record(path) == ELSEWHERE
    subprocess.run(["git", "-C", tmp_path, "rm", "--quiet", "--cached", path], check=True)
    with pytest.raises(RecordError, match="append-only"):
        filing(OTHER, tmp_path, replace=True)  # no longer in the index, and still in the history


def test_trials_found_out_later_are_filed_too_where_no_commit_holds_the_record(tmp_path):
    commit(tmp_path)
    path = tmp_path / "records" / REAL.run.record_path()
    file_record(REAL, tmp_path)
    assert "in place of one never committed" in file_record(ELSEWHERE, tmp_path)
    assert read_record(path).status.trials == 3
    assert file_record(REAL, tmp_path) == f"already filed: {path}"  # fewer are no news
    assert read_record(path).status.trials == 3


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"environment": {"git_dirty": True}}, "must be false: commit ltrobust_bench/ and the method's folder"),
        ({"environment": {"git_commit": None, "git_dirty": None}}, "run it from a git checkout"),
        ({"run": {"limit_test": 100}, "status": {"reduced": True}}, "reduced runs join no board .*limit_test 100"),
        ({"run": {"protocol": "smoke"}}, "smoke tests join no board"),
    ],
)
def test_what_no_board_accepts_is_not_filed(tmp_path, sections, says):
    record = changed(**sections)
    with pytest.raises(UsageError, match=f"^not filed, no board accepts this record: .*{says}"):
        filing(record, tmp_path, replace=True)
    assert file_record(record, tmp_path).startswith("not filed") and not list(tmp_path.iterdir())


def test_a_damaged_file_in_its_place_is_named_and_stays(tmp_path):
    path = tmp_path / "records" / REAL.run.record_path()
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert "is no record" in file_record(REAL, tmp_path) and path.read_text() == "{"
