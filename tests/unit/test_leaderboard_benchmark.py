"""``benchmarks/leaderboard.py``, with few records: what is timed are valid records, and all of them are read."""

from __future__ import annotations

import importlib.util

import pytest
from click.testing import CliRunner

from ltrobust_bench.records.io import find_records


@pytest.fixture
def benchmark(root):
    spec = importlib.util.spec_from_file_location("leaderboard_benchmark", root / "benchmarks" / "leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_times_boards_of_small_and_of_large_test_sets(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "MIXTURES", {"half of each": 4})
    found = CliRunner().invoke(benchmark.main, ["--records", "24", "--output", str(tmp_path / "times.csv")])
    assert found.exit_code == 0, found.output
    header, cold, warm = (tmp_path / "times.csv").read_text().splitlines()
    assert header == ",".join(benchmark.COLUMNS)
    assert cold.startswith("half of each,cold,24,8,") and warm.startswith("half of each,warm,24,8,")


def test_its_records_are_what_their_files_would_be(benchmark, tmp_path):
    benchmark.write_board(tmp_path, "digits-lt", 0, 2)
    records, problems = find_records([tmp_path])
    assert len(records) == 2 * benchmark.SEEDS and problems == []
    assert len({record.result.digest for record in records}) == len(records)
