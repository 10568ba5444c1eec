"""The program that tries to forge the board: it finds nothing today, and it would say so if a rule were gone."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ltrobust_bench.records.validate import Report

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")


@pytest.fixture(scope="module")
def attack():
    spec = importlib.util.spec_from_file_location("attack_the_board", BENCHMARKS / "attack_the_board.py")
    module = sys.modules["attack_the_board"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_scheme_that_changes_a_rank_is_noticed_until_its_rule_is_gone(attack, monkeypatch):
    """A record of a rival edited in place; what sees it is the comparison with git."""
    found = CliRunner().invoke(attack.main, ["--only", "bits-edited"])
    assert found.exit_code == 0 and "append-only" in found.output and "is noticed" in found.output
    monkeypatch.setattr(attack, "validate", lambda *_, **__: Report(0, 0, "", []))
    monkeypatch.setattr(attack.submission, "sort_out", lambda *_: attack.submission.Task())
    found = CliRunner().invoke(attack.main, ["--only", "bits-edited"])
    assert found.exit_code == 1 and "1 change a rank unnoticed: bits-edited" in found.output


def test_every_scheme_says_what_it_is_and_there_are_enough(attack):
    assert len(attack.SCHEMES) >= 38 and all(scheme.__doc__ for scheme in attack.SCHEMES.values())


def test_every_scheme_has_its_row_on_the_page(attack):
    """What was tried and is not told there was not tried."""
    begun, _, rest = attack.PAGE.read_text().partition(attack.BEGIN)
    table, ended, _ = rest.partition(attack.END)
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]
    assert begun and ended and rows == [scheme.__doc__.strip() for scheme in attack.SCHEMES.values()]


@pytest.mark.slow
def test_no_scheme_changes_a_rank_unnoticed(attack, tmp_path, monkeypatch):
    page = tmp_path / "security.md"
    page.write_text(f"a\n{attack.BEGIN}\n{attack.END}\nb\n")
    monkeypatch.setattr(attack, "PAGE", page)
    found = CliRunner().invoke(attack.main, [])
    assert found.exit_code == 0, found.output
    assert page.read_text().count("\n| ") == len(attack.SCHEMES) + 2
