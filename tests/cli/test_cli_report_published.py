"""``ltbench report published`` on the committed files, and on wrong ones."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from command_line import call, refused

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def results(tmp_path):
    """The committed published numbers in a folder of their own, without records."""
    shutil.copytree(RESULTS / "published", tmp_path / "published")
    return tmp_path


def published(capsys, results, *arguments):
    return call(capsys, "report", "published", "--results-dir", results, *arguments)


def test_numbers_stand_under_setting_kind_and_source(capsys, results, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = published(capsys, results, "--method", "resample")
    assert code == 0 and err == ""
    assert "cifar10-lt, imbalance ratio 50, wrn-34-10" in out
    assert "digitized: wu2021adversarial, teaser figure, scatter" in out and "github_teaser.pdf" in out
    (line,) = [line.split() for line in out.splitlines() if " robust_unspecified " in line]
    assert line == ["AT-RS", "resample", "robust_unspecified", "24.25", "-"], "no record of ours yet: a dash"
    said = " ".join(out.split())
    assert "Never ranked" in said and "the figure does not name the attack" in said


def test_tables_fit_80_columns(capsys, results, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = published(capsys, results, "--metric", "*")
    rows = [line for line in out.splitlines() if line.startswith(" ") and "https://" not in line]
    assert len(rows) > 50 and all(len(row) <= 80 for row in rows)


def test_single_classes_are_left_out_until_asked_for(capsys, results):
    _, out, err = published(capsys, results)
    assert "_class_" not in out and "numbers of single classes are left out" in err
    code, out, err = published(capsys, results, "--metric", "clean_class_8")
    assert code == 0 and "34.0" in out and err == ""


@pytest.mark.board
def test_ours_stands_beside_where_a_board_has_it(capsys, tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "records").symlink_to(RESULTS / "records")
    row = "digits-lt,20,small,reat,,REAT,balanced_clean,90.10,,printed,Table 1,https://example.org,"
    header = (RESULTS / "published" / "yue2024revisiting.csv").read_text().splitlines()[0]
    (tmp_path / "published" / "doe2026paper.csv").write_text(f"{header}\n{row}\n")
    with (RESULTS / "leaderboard.csv").open(newline="") as handle:
        (ours,) = [
            r["clean_balanced"]
            for r in csv.DictReader(handle)
            if (r["board"], r["method"]) == ("digits-v0-digits-lt-ir20-small-fixed", "reat")
        ]
    _, out, _ = published(capsys, tmp_path, "--format", "csv")
    (line,) = csv.DictReader(out.splitlines())
    assert (line["value"], line["ours"], line["board"]) == ("90.10", ours, "digits-v0-digits-lt-ir20-small-fixed")
    _, out, _ = published(capsys, tmp_path)
    assert f"{float(ours):.1f}" in out and "ours: digits-lt, imbalance ratio 20, small: protocol digits-v0" in out
    said = " ".join(out.split())  # the protocol's differences are named, and nothing is claimed
    assert "60 epochs, 10 steps of epsilon/4 in training, the last checkpoint, 500 test images, balanced" in said
    assert "no paper is reproduced here" in said
    _, out, _ = published(capsys, tmp_path, "--format", "markdown")
    assert "60 epochs, 10 steps" in out and out.endswith("no paper is reproduced here.\n")


def test_markdown_and_csv(capsys, results):
    code, out, _ = published(capsys, results, "--format", "markdown", "--dataset", "tiny-imagenet-lt")
    assert code == 0 and out.count("\n## ") == 2 and "| 42.30 ± 0.45 | - |" in out
    code, out, err = published(capsys, results, "--format", "csv")
    rows = list(csv.DictReader(out.splitlines()))
    lines = sum(len(path.read_text().splitlines()) - 1 for path in (results / "published").glob("*.csv"))
    assert code == 0 and err == "" and len(rows) == lines, "nothing is left out"
    assert {row["kind"] for row in rows} == {"printed", "digitized", "second-hand"} and "rank" not in rows[0]


def test_wrong_lines_are_named_and_the_rest_is_shown(capsys, results):
    path = results / "published" / "yue2024revisiting.csv"
    path.write_text(path.read_text().replace("printed", "rumour").replace("6.66", "666"))
    code, out, err = published(capsys, results, "--metric", "pgd20")
    assert code == 1 and "42.11" in out and "Traceback" not in err
    value, kind = err.splitlines()
    assert "yue2024revisiting.csv: line 2, value: must be between -100 and 100 points (got '666')" in value
    assert "line 2, kind" in kind and "second-hand" in kind and "rumour" in kind


def test_damaged_records_are_named(capsys, results):
    (results / "records").mkdir()
    (results / "records" / "x.json").write_text("{")
    code, out, err = published(capsys, results, "--metric", "pgd20")
    assert code == 1 and "42.11" in out and "x.json" in err


def test_bad_requests(capsys, results):
    line = ["report", "published", "--results-dir", results]
    assert "'reat'" in refused(capsys, *line, "--method", "raet")
    assert "'cifar10-lt'" in refused(capsys, *line, "--dataset", "cifar10")
    assert "'pgd20'" in refused(capsys, *line, "--metric", "pgd-20")
    assert "no published numbers in" in refused(capsys, *line[:-1], results / "published")
    code, out, _ = call(capsys, *line, "--dataset", "tiny-imagenet-lt", "--metric", "cw20")
    assert code == 0 and out.strip() == "no published number fits"
