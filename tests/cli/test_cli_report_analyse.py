"""``ltbench report analyse``."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from command_line import FAST, call, refused

from ltrobust_bench.cli.main import main

RECORDS = Path(__file__).parents[2] / "results" / "records"
NAMES = {"errors", "confusion", "norms", "margins"}
ANALYSE = ["report", "analyse"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of a trained network without record."""
    runs = tmp_path_factory.mktemp("runs")
    small = ["--epochs", "1", "--limit-train", "50", "--limit-test", "20", "--runs-dir", str(runs)]
    assert main(["train", "--method", "robal", "--dataset", "digits-lt", *FAST, *small]) == 0
    return next(runs.iterdir())


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it to write to."""
    return shutil.copytree(trained, tmp_path / trained.name)


def attacks(path):
    with path.open(newline="") as file:
        return {row["attack"] for row in csv.DictReader(file)}


def test_without_a_record_pgd_is_what_everything_is_under(capsys, folder):
    code, out, _ = call(capsys, *ANALYSE, folder, "--device", "cpu")
    assert code == 0 and "under pgd-5 alone" in out and "cosine head" in out and "medium" in out
    assert "…" not in out and "vector" in out, "it has room in 80 columns"
    written = folder / "analysis"
    assert {p.name for p in written.iterdir()} == {f"{n}.{e}" for n in NAMES for e in ("csv", "png", "svg", "pdf")}
    assert attacks(written / "errors.csv") == {"pgd-5"}


def test_with_a_record_errors_are_the_whole_suites(capsys, folder, tmp_path):
    assert call(capsys, "eval", folder, "--device", "cpu", "--results-dir", tmp_path / "results")[0] == 0
    before = sorted(folder.iterdir())
    code, out, _ = call(capsys, *ANALYSE, folder / "model.safetensors", "--output", tmp_path / "a")
    assert code == 0 and "worst case over the suite" in out and sorted(folder.iterdir()) == before
    assert attacks(tmp_path / "a" / "errors.csv") == {"union"}
    assert attacks(tmp_path / "a" / "confusion.csv") == {"pgd-5"}


def test_bad_requests(capsys, folder, tmp_path):
    assert "no checkpoint" in refused(capsys, *ANALYSE, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists() and not (tmp_path / "analysis").exists()
    assert "use 10 or more" in refused(capsys, *ANALYSE, folder, "--limit-test", 3)
    (tmp_path / "file").write_text("not a folder")
    assert "cannot write to" in refused(capsys, *ANALYSE, folder, "--output", tmp_path / "file" / "below")
    assert "use auto, cpu" in refused(capsys, *ANALYSE, folder, "--device", "tpu")
    assert "RUN" in refused(capsys, *ANALYSE)
    shutil.copy(next((RECORDS / "digits-v0").rglob("robal/*.json")), folder / "record.json")
    assert "belongs to another run" in refused(capsys, *ANALYSE, folder)
    (folder / "record.json").write_text("[]")
    assert "schema_version" in refused(capsys, *ANALYSE, folder)
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-9])
    assert "no readable safetensors file" in refused(capsys, *ANALYSE, folder)
