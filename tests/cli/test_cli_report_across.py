"""``ltbench report across``, ``table --prior`` and ``compare --margin`` on the committed records."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import call, refused

RESULTS = Path(__file__).parents[2] / "results"
PLACE = ["--results-dir", RESULTS]


def test_across_names_its_pool_and_writes_files(capsys, tmp_path):
    code, out, _ = call(capsys, "report", "across", *PLACE)
    assert code == 0 and "The pool: " in out and "Another pool gives other mean ranks" in out
    path = tmp_path / "across.csv"
    code, out, _ = call(capsys, "report", "across", *PLACE, "--format", "csv", "--output", path)
    lines = path.read_text().splitlines()
    assert code == 0 and lines[0] == "method,mean_rank,low,high,wins,losses,share_of_reference"
    assert lines[1].split(",")[0] in lines[lines.index("") + 1].split(",")[1:]
    assert "0 board(s)" in refused(capsys, "report", "across", *PLACE, "--track", "paper")


def test_a_table_under_a_prior(capsys, tmp_path):
    asked = ["report", "table", "--dataset", "digits-lt", *PLACE, "--methods", "at,reat", "--groups", "all"]
    plain = json.loads(call(capsys, *asked, "--format", "json")[1])
    uniform = json.loads(call(capsys, *asked, "--format", "json", "--prior", "uniform")[1])
    for before, after in zip(plain["entries"], uniform["entries"], strict=True):
        for column, numbers in before["percent"].items():
            assert abs(numbers["all"]["mean"] - after["percent"][column]["all"]["mean"]) < 1e-9
            assert "-" in after["percent"][column]["all"]["interval"]
    code, out, _ = call(capsys, *asked, "--prior", "train")
    assert code == 0 and "weighed by the prior 'train'" in out
    (tmp_path / "mix.txt").write_text("1 2 3")
    assert "3 numbers for 10 classes" in refused(capsys, *asked, "--prior", tmp_path / "mix.txt")
    assert "none of train, uniform, reversed" in refused(capsys, *asked, "--prior", "tail")


def test_equivalence_is_stated_with_its_margin(capsys):
    asked = ["report", "compare", "--dataset", "digits-lt", *PLACE, "reat", "at-bsl"]
    code, out, _ = call(capsys, *asked, "--margin", "50")
    words = " ".join(out.split())
    assert code == 0 and "p (equal)" in words and "equivalent" in words and "not resolved" not in words
    assert "equivalent" not in call(capsys, *asked, "--margin", "0.1")[1]
    assert "--margin" in refused(capsys, *asked, "--margin", "0")
