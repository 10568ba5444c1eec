"""The committed results are what the committed records say, under the committed protocols and cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import find_records, read_record
from ltrobust_bench.records.trust import Results, heard
from ltrobust_bench.records.verify import DIFFERING, Verification, objections
from ltrobust_bench.report import leaderboard
from ltrobust_bench.sweeps.plan import read_plan
from ltrobust_bench.terms import canonical_digest

RESULTS = Path(__file__).resolve().parents[2] / "results"
RECORDS = sorted((RESULTS / "records").rglob("*.json"))


LITE = "ltr-linf-lite-v1"
"""Its campaign goes on for weeks of computing: what is there is whole, and more will be."""


@pytest.mark.board
def test_three_seeds_of_each_entry_on_digits():
    found, problems = find_records([RESULTS / "records"])
    assert problems == []
    seeds = {}
    for record in found:
        if record.run.protocol == LITE:
            continue
        entry = record.run.model_dump(mode="json", exclude={"seed", "base_key"})
        seeds.setdefault(canonical_digest(entry), set()).add(record.run.seed)
    assert all(s == {0, 1, 2} for s in seeds.values())


@pytest.mark.board
def test_every_defense_of_the_registry_is_on_the_board_or_a_campaign_has_it(root):
    found, _ = find_records([RESULTS / "records"])
    on_board = {r.run.method for r in found if r.run.imbalance_ratio > 1 and r.run.profile == "exp"}
    plans = [read_plan(path) for path in (root / "campaigns").glob("*.toml")]
    requests = [request for plan in plans for request in plan.requests()]
    on_their_way = {request.method for request in requests}
    assert on_board <= set(methods.names()) == on_board | on_their_way
    around = {p for r in found for p in r.run.plugins}
    assert around <= set(plugins.names()) == around | {p for request in requests for p in request.plugins}


def test_each_was_attacked_again_and_chance_explains_what_came_out_otherwise():
    found, problems = heard([RESULTS / "records"])
    assert Results(RESULTS).public and problems == []
    statements = {}
    for one in found:
        assert isinstance(one.statement, Verification)
        statements.setdefault(one.statement.record, []).append(one)
    looked_at = otherwise = 0
    for path in RECORDS:
        record = read_record(path)
        assert record.id in statements or record.run.protocol == LITE, f"{path} is only claimed"
        for one in statements.get(record.id, []):
            statement, (counts, why) = one.statement, one.worth(record)
            assert counts and ("can be computed again" in why or one.signer), f"{path}: {why}"
            assert objections(record, statement) == [], path
            clean, robust = statement.bits
            places = slice(None) if statement.places is None else statement.places
            looked_at += statement.images
            otherwise += int((clean != record.bits("clean")[places]).sum())
            otherwise += int((robust != record.bits("union")[places]).sum())
    assert otherwise / looked_at < DIFFERING


def test_they_defend():
    """Under PGD-20 each run is more robust than plain training with the same seed. There is no exception to list."""
    found, _ = find_records([RESULTS / "records"])
    board = [r for r in found if r.run.imbalance_ratio > 1 and r.run.profile == "exp"]
    robust = {r.id: float(r.metrics("pgd-20").balanced) for r in board}
    terms = {r.id: (r.run.protocol, r.run.dataset, r.run.seed) for r in board}
    plain = {terms[r.id]: robust[r.id] for r in board if r.run.method == "erm"}
    assert {("digits-v0", "digits-lt", seed) for seed in range(3)} <= plain.keys()
    for record in board:
        if record.run.method != "erm" and terms[record.id] in plain:
            assert robust[record.id] > plain[terms[record.id]], record.run.folder_name()


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: "/".join(p.parts[-2:]))
def test_record(path):
    record = read_record(path)
    run = record.run
    assert path.relative_to(RESULTS / "records").as_posix() == run.record_path()
    assert record.environment.git_dirty is False and record.environment.git_commit
    protocol, card = load_protocol(run.protocol), methods.get(run.method).card
    assert run.protocol_digest == protocol.digest(run.dataset) and run.card_version == card.version
    assert run.recipe == card.resolve_recipe(protocol, run.track, run.epsilon, run.overrides)


@pytest.mark.board
def test_tables_are_regenerated_byte_for_byte(tmp_path):
    leaderboard([RESULTS / "records"], tmp_path, figures=False)
    for name in ("leaderboard.csv", "groups.csv", "per_class.csv", "leaderboard.md"):
        assert (tmp_path / name).read_bytes() == (RESULTS / name).read_bytes(), name
