"""2,000 odd inputs of every kind; `make fuzz` tries 100,000."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest

from ltrobust_bench.cards import read_card
from ltrobust_bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CASES = 2000
SEED = 20
NAMES = [
    "archives",
    "cards",
    "checkpoints",
    "graphs",
    "images",
    "npz",
    "options",
    "plans",
    "protocols",
    "records",
    "statements",
    "weights",
]


@pytest.fixture
def fuzzing(monkeypatch):
    pytest.importorskip("hypothesis", reason="hypothesis is part of the dev extra")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return __import__("fuzzing")


@pytest.fixture
def patient(fuzzing):
    """Other tests may run beside this one."""
    return fuzzing.Limits(seconds=10, patience=120)


def test_these_are_all_kinds(fuzzing):
    assert sorted(fuzzing.KINDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_odd_input_ends_in_one_line(fuzzing, patient, tmp_path, name):
    kind = fuzzing.KINDS[name]
    count = round(CASES * kind.share / sum(other.share for other in fuzzing.KINDS.values()))
    tally = fuzzing.campaign(kind(tmp_path), count, SEED, tmp_path / "kept", patient)
    assert not tally.fault, f"{tally.fault}; python benchmarks/fuzz.py --kind {name} --cases {count} --seed {SEED}"
    assert tally.ends.total() >= 0.9 * count and tally.ends["refused"]
    assert tally.ends["accepted"] or name in ("options", "archives")  # of random ones one in 25, one in 40 is right


def test_documents_are_written_deeper_than_they_are_read(fuzzing, tmp_path):
    """The writer is not what fails: a card of 2,000 tables in one another is refused by its reader, in a line."""
    deep: dict = {}
    for _ in range(2000):
        deep = {"a": deep}
    (tmp_path / "card.toml").write_bytes(fuzzing.tools.toml_file(deep))
    with pytest.raises(UsageError, match="not a valid card"):
        read_card(tmp_path / "card.toml")


@pytest.fixture
def made(fuzzing, tmp_path):
    """A kind made for a test, and what comes of 50 cases of it."""

    def make(attempt, **limits):
        name = f"made-{attempt.__name__}"
        kind = type("Made", (fuzzing.Kind,), {"name": name, "attempt": lambda self, rng, place: attempt(rng, place)})
        fuzzing.KINDS.pop(name)
        return fuzzing.campaign(kind(tmp_path), 50, 3, tmp_path / "kept", fuzzing.Limits(**limits))

    return make


def test_a_fault_is_made_small_and_found_again(made, tmp_path):
    def crashes(rng, place):
        numbers = [rng.randrange(1000) for _ in range(rng.randrange(20))]
        (place / "case").write_text(repr(numbers))
        if any(number > 500 for number in numbers):
            raise KeyError("x")

    faults = [made(crashes).fault for _ in range(2)]
    assert faults[0] == faults[1] and "KeyError: 'x'" in faults[0] and "crashes" in faults[0]
    assert (tmp_path / "kept" / "made-crashes" / "case").read_text() == "[501]"


def test_what_else_is_a_fault(made):
    def hangs(rng, place):
        time.sleep(60)

    def computes(rng, place):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass

    def swells(rng, place):
        np.ones(400_000_000, dtype=np.uint8)  # far more than what an earlier test may have left free

    def leaves(rng, place):
        raise SystemExit(0)

    def speaks(rng, place):
        error = UsageError("x")
        error.exit_code = 3
        raise error

    assert "no end after 0.2 seconds" in made(hangs, patience=0.2).fault
    assert "of the processor" in made(computes, seconds=0.2).fault
    assert "took 4" in made(swells, memory=100_000_000).fault or not Path("/proc/self/clear_refs").exists()
    assert "exit code 3" in made(speaks).fault
    assert "SystemExit" in made(leaves).fault


def test_a_reader_that_trusts_is_found_out(fuzzing, patient, tmp_path, monkeypatch):
    def trusting(path, content):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return arrays["index"], arrays["images"]

    monkeypatch.setattr("fuzzing.binaries.read_examples", trusting)
    assert fuzzing.campaign(fuzzing.KINDS["npz"](tmp_path), 200, 0, tmp_path / "kept", patient).fault
