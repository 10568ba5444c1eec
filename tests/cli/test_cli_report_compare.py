"""``ltbench report compare`` on the committed records."""

from __future__ import annotations

import shutil
from pathlib import Path

from command_line import call, refused

RESULTS = Path(__file__).parents[2] / "results"
COMPARE = ["report", "compare", "--dataset", "digits-lt", "--results-dir", RESULTS]


def test_compare_prints_every_group_and_says_what_is_resolved(capsys):
    code, out, _ = call(capsys, *COMPARE, "reat", "trades", "at-bsl")
    assert code == 0 and "reat - trades" in out and "reat - at-bsl" in out
    assert out.count("medium") == 2 and "seeds paired: 0, 1, 2" in out
    assert "better" in out.split("reat - at-bsl")[0], "REAT beats TRADES on every seed"
    assert "not resolved" in out.split("reat - at-bsl")[1], "the two best entries differ by chance"


def test_compare_takes_labels_and_attacks(capsys):
    code, out, _ = call(capsys, *COMPARE, "robal", "robal (variant=N)", "--attack", "clean")
    assert code == 0 and "accuracy under clean" in out


def test_bad_requests(capsys):
    assert "'reat'" in refused(capsys, *COMPARE, "raet", "at")
    assert "autoattack" in refused(capsys, *COMPARE, "reat", "at", "--attack", "autoatack")
    assert "needs two" in refused(capsys, *COMPARE, "reat")
    assert "0 boards fit" in refused(capsys, *COMPARE, "reat", "at", "--track", "paper")
    assert "named twice" in refused(capsys, *COMPARE, "reat", "at", "at")
    assert "0 boards fit" in refused(capsys, *COMPARE, "reat", "at", "--imbalance-ratio", 7)


def test_damaged_records_are_named(capsys, tmp_path):
    shutil.copytree(RESULTS / "records", tmp_path / "records")
    broken = next((tmp_path / "records").rglob("reat/*.json"))
    broken.write_text(broken.read_text()[:100])
    place = ["--dataset", "digits-lt", "--results-dir", tmp_path, "--imbalance-ratio", 20, "--profile", "exp"]
    code, out, _ = call(capsys, "report", "compare", "reat", "at", *place)
    assert code == 1 and broken.name in out.replace("\n", "")


def test_another_ratio_has_a_board_of_its_own(capsys):
    line = refused(capsys, *COMPARE, "reat", "at", "--imbalance-ratio", 1)
    assert "unknown entry" in line or "no entry" in line, line
    assert "there are" in refused(capsys, *COMPARE, "reat", "at", "--imbalance-ratio", 7)
