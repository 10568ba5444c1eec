"""What a thorough evaluation says of a record, and what follows for its rank."""

from __future__ import annotations

import numpy as np
import pytest
from record_factory import measured, synthetic_record

from ltrobust_bench.errors import RecordError
from ltrobust_bench.records.io import find_records, write_record
from ltrobust_bench.records.verify import demanded, standing, verification, write_verification
from ltrobust_bench.report.aggregate import MASKED, boards
from ltrobust_bench.report.columns import cells_of
from ltrobust_bench.scores.reliability import MASKING

MEASURED = measured(zero_gradients=0.5)
ASKED = ("pma", "transfer-student", "eot", "nes", "spsa", "square")
"""Attacks of a thorough evaluation of a network with a masking flag."""


@pytest.fixture
def board(tmp_path):
    """A board of one's own with an honest and a masked entry; the masked one's records."""
    place = tmp_path / "results"
    masked = [
        synthetic_record(method="masked", seed=s, robustness=0.9).model_copy(update={"reliability": MEASURED})
        for s in (0, 1)
    ]
    for record in (*masked, *(synthetic_record(method="honest", seed=s) for s in (0, 1))):
        write_record(record, place / "records" / record.run.record_path())
    return place, masked


def seen(place):
    (found,) = boards(find_records([place / "records"])[0])
    return {entry.label: entry for entry in found.entries}, {c["method"]: c for c in cells_of(found)}


def stated(record, place, robust=None, places=None, kind="thorough", weights=None, asked=ASKED):
    left = np.flatnonzero(record.bits("union")) if places is None else places
    robust = np.ones(len(left), dtype=bool) if robust is None else robust
    weights = weights or record.result.weights_sha256
    clean = np.ones(len(left), dtype=bool)
    attacks = {**dict.fromkeys(asked, 0), asked[0]: int((~robust).sum())} if kind == "thorough" else None
    made = verification(record, kind, left, clean, robust, weights, "Jane", record.environment, attacks=attacks)
    write_verification(made, place)
    return made


def test_an_entry_with_masked_gradients_has_no_rank_before_all_of_it_was_attacked_thoroughly(board):
    place, masked = board
    entries, cells = seen(place)
    assert MASKED in entries["masked"].flags and entries["masked"].rank is None
    assert entries["honest"].rank == 1 and cells["masked"]["external"] is None
    stated(masked[0], place)
    entries, _ = seen(place)
    assert MASKED in entries["masked"].flags and entries["masked"].rank is None  # its other seed
    part = np.flatnonzero(masked[1].bits("union"))[:-1]
    stated(masked[1], place, places=part)
    assert seen(place)[0]["masked"].rank is None
    stated(masked[1], place, asked=("pma", "nothing at all"))
    assert seen(place)[0]["masked"].rank is None
    stated(masked[1], place)
    entries, cells = seen(place)
    assert MASKED not in entries["masked"].flags and entries["masked"].rank == 1
    assert cells["masked"]["external"] == pytest.approx(cells["masked"]["union_balanced"])
    assert cells["honest"]["external"] is None


def test_what_a_thorough_evaluation_breaks_lowers_the_entry_and_raises_no_level(board):
    place, masked = board
    before = seen(place)[1]["masked"]["union_balanced"]
    for record in masked:
        left = np.flatnonzero(record.bits("union"))
        stated(record, place, robust=np.arange(len(left)) >= 40)
    entries, cells = seen(place)
    assert cells["masked"]["external"] == cells["masked"]["union_balanced"] < before
    assert "lowered" in entries["masked"].flags and {r.standing.level for r in entries["masked"].runs} == {"claimed"}
    assert not any(r.standing.disputed for r in entries["masked"].runs)


def test_a_statement_must_have_every_attack_that_the_flags_ask_for(board):
    """PMA alone is what an honest record needs; one with masked gradients needs them all, one that is built on another
    run that one's network, too."""
    place, masked = board
    left = np.flatnonzero(masked[0].bits("union"))
    robust = np.ones(len(left), dtype=bool)

    def with_attacks(record, attacks, **more):
        weights = record.result.weights_sha256
        return verification(
            record, "thorough", left, robust, robust, weights, "Jane", record.environment, attacks=attacks, **more
        )

    every = ["pma", "transfer-student", "eot", "nes", "spsa", "square"]
    assert demanded(masked[0]) == every and demanded(synthetic_record()) == ["pma"]
    built = masked[0].model_copy(update={"run": masked[0].run.model_copy(update={"base_key": "a" * 64})})
    assert demanded(built) == ["pma", "transfer-base", *every[1:]]
    for missing in every:
        made = with_attacks(masked[0], dict.fromkeys([name for name in every if name != missing], 0))
        assert not standing(masked[0], [made]).thorough
    assert standing(masked[0], [with_attacks(masked[0], dict.fromkeys(every, 0))]).thorough
    for record in masked:
        write_verification(with_attacks(record, {"pma": 0}, not_run={"bpda": "there was none"}), place)
    assert seen(place)[0]["masked"].rank is None
    (said,) = (r.standing.said for r in seen(place)[0]["masked"].runs[:1])
    assert "but without transfer-student, eot, nes, spsa, square, which its flags ask for" in said[0].says
    assert "bpda was not run: there was none" in said[0].says
    with pytest.raises(RecordError, match="not_run: belongs to a thorough evaluation, and is about other attacks"):
        with_attacks(masked[0], {"pma": 0}, not_run={"pma": "it was"})


def test_a_thorough_evaluation_of_other_weights_or_without_its_attacks_is_none(board):
    place, masked = board
    other = stated(masked[0], place, weights="d" * 64)
    found = standing(masked[0], [other])
    assert not found.thorough and not found.external and found.disputed
    with pytest.raises(RecordError, match="attacks: belongs to a thorough evaluation"):
        verification(masked[0], "thorough", None, masked[0].bits("clean"), masked[0].bits("union"), "c" * 64, "Jane",
                     masked[0].environment)  # fmt: skip


def test_every_masking_flag_keeps_an_entry_from_a_rank():
    values = {
        "random": {"randomness": 0.1},
        "zero gradients": {},
        "robust to anything": {"accuracy_at_half": 0.5},
        "not monotone": {"accuracy_by_radius": {"1": 0.2, "2": 0.6}},
        "batch": {"batch_dependence": 0.5},
    }
    assert {*values, "square"} == set(MASKING)
    for flag, change in values.items():
        seen = MEASURED.model_copy(update={"zero_gradients": 0.5 if flag == "zero gradients" else 0.0, **change})
        (found,) = boards([synthetic_record().model_copy(update={"reliability": seen})])
        assert found.entries[0].rank is None and {flag, MASKED} <= set(found.entries[0].flags)


def test_a_thorough_evaluation_breaks_as_many_images_as_its_attacks_do():
    record = synthetic_record()
    left = np.flatnonzero(record.bits("union"))
    with pytest.raises(RecordError, match="must have broken as many images as do not withstand them"):
        verification(record, "thorough", left, np.ones(len(left), dtype=bool), np.ones(len(left), dtype=bool),
                     "c" * 64, "Jane", record.environment, attacks={"pma": 10**9})  # fmt: skip


def on_a_public_board(place, *runs):
    """Ranks by label on a public board of records, each with what its own word and its verification measured."""
    for seed, method, own, theirs in runs:
        record = synthetic_record(method=method, seed=seed, robustness=0.9 if method == "rival" else 0.5)
        record = record.model_copy(update={"reliability": own})
        write_record(record, place / "records" / record.run.record_path())
        said = verification(record, "re-evaluated", None, record.bits("clean"), record.bits("union"), "c" * 64, "Jane",
                            record.environment, graph_sha256="d" * 64, reliability=theirs)  # fmt: skip
        write_verification(said, place)
    (place / "signers").write_text("# nobody yet\n")
    return {label: (entry.rank, len(entry.runs)) for label, entry in seen(place)[0].items()}


def test_what_a_verification_measures_decides_and_not_the_records_own_word(tmp_path):
    sound, bad = measured(), MEASURED
    for i, (own, theirs, rank) in enumerate([
        (None, bad, None), (sound, bad, None), (bad, sound, 1), (None, sound, 1),
        (sound, None, None),  # a graph was judged, and nothing measured of it: nothing is confirmed
    ]):  # fmt: skip
        found = on_a_public_board(tmp_path / str(i), (0, "rival", own, theirs))
        assert found == {"rival": (rank, 1)}, (own, theirs)
        ((record,), _) = find_records([tmp_path / str(i) / "records"])
        (said,) = record.standing.said
        assert ("flagged zero gradients" in said.says, "confirms nothing" in said.says) == (theirs is bad, not theirs)


def test_a_thorough_evaluation_that_found_no_flag_does_not_stand_for_one_that_was_asked_for_by_one():
    record = synthetic_record()
    left = np.flatnonzero(record.bits("union"))
    ones = np.ones(len(left), dtype=bool)
    looked = verification(record, "re-evaluated", None, record.bits("clean"), record.bits("union"), "c" * 64, "Jane",
                          record.environment, graph_sha256="d" * 64, reliability=MEASURED)  # fmt: skip
    for asked, enough in ((("pma",), False), (ASKED, True)):
        tried = verification(record, "thorough", left, ones, ones, "c" * 64, "Jane", record.environment,
                             graph_sha256="d" * 64, attacks=dict.fromkeys(asked, 0),
                             reliability=measured())  # fmt: skip
        assert standing(record, [looked, tried]).thorough == enough


def test_a_flagged_run_added_to_a_rivals_entry_stands_beside_it(tmp_path):
    sound = [(seed, "rival", measured(), measured()) for seed in (0, 1)]
    other = (0, "other", None, measured())
    before = on_a_public_board(tmp_path / "a", *sound, other)
    assert before["rival"] == (1, 2)
    after = on_a_public_board(tmp_path / "b", *sound, (2, "rival", None, MEASURED), other)
    assert after == before | {f"rival ({MASKED})": (None, 1)}


def test_what_rests_on_other_networks_must_be_signed_on_a_public_board(tmp_path):
    """The student comes out again wherever the model is; somebody's other network does not."""
    record = synthetic_record()
    write_record(record, tmp_path / "records" / record.run.record_path())
    (tmp_path / "signers").write_text("# none yet\n")
    for attacks, counts in ((("pma", "transfer-student"), True), (("pma", "transfer-base"), False)):
        left = np.flatnonzero(record.bits("union"))
        robust = np.ones(len(left), dtype=bool)
        made = verification(
            record, "thorough", left, robust, robust, record.result.weights_sha256, "Jane", record.environment,
            attacks=dict.fromkeys(attacks, 0),
        )  # fmt: skip
        path = write_verification(made, tmp_path)
        ((found,), _) = find_records([tmp_path / "records"])
        assert found.standing.thorough == counts
        path.unlink()
