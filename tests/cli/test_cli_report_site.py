"""``ltbench report site``."""

from __future__ import annotations

import shutil
from pathlib import Path

from command_line import call, refused

RESULTS = Path(__file__).parents[2] / "results"
SOME = RESULTS / "records" / "digits-v0" / "digits-lt-ir20" / "reat"


def test_it_writes_a_page_to_open(capsys, tmp_path):
    code, out, _ = call(capsys, "report", "site", "--records", SOME, "--output", tmp_path / "site")
    assert code == 0 and f"open {tmp_path / 'site' / 'index.html'}" in out
    assert "reat" in (tmp_path / "site" / "index.html").read_text()
    assert call(capsys, "report", "site", "--records", SOME, "--output", tmp_path / "site")[0] == 0


def test_records_of_the_results_folder_are_the_default(capsys, tmp_path, monkeypatch):
    shutil.copytree(SOME, tmp_path / "results" / "records")
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "report", "site")[0] == 0
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_damaged_record_is_named(capsys, tmp_path):
    shutil.copytree(SOME, tmp_path / "records")
    (tmp_path / "records" / "broken.json").write_text("{")
    code, out, _ = call(capsys, "report", "site", "--records", tmp_path / "records", "-o", tmp_path / "site")
    assert code == 1 and "broken.json" in out and (tmp_path / "site" / "index.html").is_file()


def test_bad_requests(capsys, tmp_path):
    assert "no records in" in refused(capsys, "report", "site", "--records", tmp_path, "-o", tmp_path / "site")
    (tmp_path / "thesis.tex").write_text("")
    line = refused(capsys, "report", "site", "--records", SOME, "-o", tmp_path)
    assert "not replaced" in line and (tmp_path / "thesis.tex").exists()
