"""The committed results are what the committed records say, under the committed protocols and cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltrobust_bench.cards import methods
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import find_records, read_record
from ltrobust_bench.report import leaderboard

RESULTS = Path(__file__).resolve().parents[2] / "results"
RECORDS = sorted((RESULTS / "records").rglob("*.json"))


def test_three_seeds_of_each_entry():
    found, problems = find_records([RESULTS / "records"])
    assert problems == []
    seeds = {}
    for record in found:
        seeds.setdefault((record.run.method, str(record.run.options)), set()).add(record.run.seed)
    assert {m for m, _ in seeds} >= {"at", "trades", "robal", "reat", "at-bsl"}
    assert all(s == {0, 1, 2} for s in seeds.values())


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: "/".join(p.parts[-2:]))
def test_record(path):
    record = read_record(path)
    run = record.run
    assert path.relative_to(RESULTS / "records").as_posix() == run.record_path()
    assert record.environment.git_dirty is False and record.environment.git_commit
    protocol, card = load_protocol(run.protocol), methods.get(run.method).card
    assert run.protocol_digest == protocol.digest(run.dataset) and run.card_version == card.version
    assert run.recipe == card.resolve_recipe(protocol, run.track, run.epsilon)


def test_tables_are_regenerated_byte_for_byte(tmp_path):
    leaderboard([RESULTS / "records"], tmp_path, figures=False)
    for name in ("leaderboard.csv", "groups.csv", "per_class.csv", "leaderboard.md"):
        assert (tmp_path / name).read_bytes() == (RESULTS / name).read_bytes(), name
