"""``ltbench report table`` on the committed records."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

from command_line import call, refused

from ltrobust_bench.records.io import read_record, write_record

RESULTS = Path(__file__).parents[2] / "results"
TABLE = ["report", "table", "--dataset", "digits-lt", "--results-dir", RESULTS]


def test_names_with_commas_and_in_the_order_given(capsys):
    names = "erm, cosine (margin=0.2, scale=10.0),reat"
    code, out, _ = call(capsys, *TABLE, "--methods", names, "--methods", "at", "--format", "csv", "--columns", "union")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["method"] for row in rows] == ["erm", "cosine (margin=0.2, scale=10.0)", "reat", "at"]


def test_the_numbers_are_those_of_the_leaderboard(capsys):
    with (RESULTS / "leaderboard.csv").open(newline="") as handle:
        terms = {"protocol": "digits-v0", "imbalance_ratio": "20", "profile": "exp"}
        board = {r["method"]: r for r in csv.DictReader(handle) if terms.items() <= r.items()}
    _, out, _ = call(capsys, *TABLE, "--format", "csv", "--decimals", 2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["method"] for row in rows] == list(board)
    for row in rows:
        line = board[row["method"]]
        assert row["rank"] == line["rank"] and row["union_all"] == line["union_balanced"]
        assert row["union_tail"] == line["union_tail"] and row["union_all_std"] == line["union_balanced_std"]


def test_every_format_into_a_file(capsys, tmp_path):
    starts = {"markdown": "| # |", "latex": "% about ", "csv": "rank,", "json": "{", "bibtex": "@"}
    for form, start in starts.items():
        code, out, _ = call(capsys, *TABLE, "--format", form, "--output", tmp_path / form)
        assert code == 0 and out == f"wrote {tmp_path / form}\n"
        text = (tmp_path / form).read_text()
        assert text.startswith(start)
        assert call(capsys, *TABLE, "--format", form)[1] == text
    assert len(json.loads((tmp_path / "json").read_text())["entries"]) == 70


def test_another_board(capsys):
    _, out, _ = call(capsys, *TABLE, "--profile", "balanced", "--format", "json")
    assert json.loads(out)["profile"] == "balanced"


def test_what_latex_is_asked(capsys):
    options = [
        "--format",
        "latex",
        "--methods",
        "reat,at",
        "--names",
        "paper",
        "--width",
        "column",
        "--columns",
        "union",
    ]
    _, out, _ = call(capsys, *TABLE, *options, "--label", "tab:mine", "--caption", "Ours.")
    assert r"\label{tab:mine}" in out and r"\caption{Ours.}" in out and "REAT" in out and r"\begin{table}" in out


def test_bad_requests(capsys):
    assert "of --format latex" in refused(capsys, *TABLE, "--width", "page")
    assert "'reat'" in refused(capsys, *TABLE, "--methods", "raet")
    assert "did you mean 'pgd-20'" in refused(capsys, *TABLE, "--columns", "pgd20")
    assert "did you mean 'tail'" in refused(capsys, *TABLE, "--groups", "tial")
    assert "twice" in refused(capsys, *TABLE, "--columns", "clean,clean")
    assert "0 boards fit" in refused(capsys, *TABLE, "--imbalance-ratio", 7)
    assert "--format" in refused(capsys, *TABLE, "--format", "word")
    assert "no records" in refused(capsys, "report", "table", "--results-dir", "/nonexistent")


def test_a_board_that_looks_odd_is_no_problem(capsys, tmp_path):
    """Exit code 1 is for files that are no records."""
    for path in (RESULTS / "records" / "digits-v0" / "digits-lt-ir20" / "at").glob("*-s[01]-*.json"):
        record = read_record(path)
        again = record.model_copy(update={"run": record.run.model_copy(update={"seed": 0})})
        write_record(again, tmp_path / "records" / path.name)
    for command in (("table",), ("figures", "per_class"), ("leaderboard", "--no-figures")):
        code, out, err = call(capsys, "report", *command, "--results-dir", tmp_path)
        assert code == 0 and "was run more than once with different results" in out + err, command


def test_damaged_records_alone_are_named(capsys, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x.json").write_text("{")
    assert "1 damaged, the first: " in refused(capsys, "report", "table", "--results-dir", tmp_path)


def test_a_damaged_record_is_named_beside_the_table(capsys, tmp_path):
    shutil.copytree(RESULTS / "records", tmp_path / "records")
    broken = next((tmp_path / "records").rglob("reat/*.json"))
    broken.write_text(broken.read_text()[:100])
    place = ["--imbalance-ratio", 20, "--profile", "exp", "--results-dir", tmp_path]
    code, out, err = call(capsys, "report", "table", "--format", "json", *place)
    assert code == 1 and broken.name in err
    assert len(json.loads(out)["entries"]) == 70, "what is printed can still be piped"
