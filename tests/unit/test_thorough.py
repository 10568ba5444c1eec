"""The adaptive suite: what is chosen, that it goes on where it stopped, what it breaks, what follows for a board."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from record_factory import measured, synthetic_record
from torch import nn

from ltrobust_bench import verbs
from ltrobust_bench.attacks.ball import LINF
from ltrobust_bench.attacks.pgd import PGD
from ltrobust_bench.attacks.pma import PMA
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.cli.main import main
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.evaluation import student
from ltrobust_bench.evaluation.adaptive import DRAWS, adaptive_suite
from ltrobust_bench.evaluation.demonstration import Gated, Preprocessing, quantised
from ltrobust_bench.evaluation.evaluator import evaluate_images
from ltrobust_bench.evaluation.foreign import Attached
from ltrobust_bench.evaluation.state import State, state_name
from ltrobust_bench.executors.base import Job, Place
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite
from ltrobust_bench.records.io import find_records, write_record
from ltrobust_bench.records.verify import demanded, standing, verification, write_verification
from ltrobust_bench.report.aggregate import MASKED, boards
from ltrobust_bench.report.columns import cells_of
from ltrobust_bench.scores.reliability import MASKING
from ltrobust_bench.sweeps.bounds import network_sha256, write_bound
from ltrobust_bench.sweeps.jobs import Piece
from ltrobust_bench.sweeps.states import OnDisk
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import adapting, racing
from ltrobust_bench.verbs.verification import Where, attacked_thoroughly

CPU = torch.device("cpu")
TERMS = {"protocol": "smoke", "limit_train": 600, "epochs": 6, "imbalance_ratio": 1, "limit_test": 100}


@pytest.mark.parametrize(
    ("flags", "classes", "given", "names"),
    [
        ((), 10, {}, "pma"),
        (("scaled logits",), 10, {"seconds": ["base"]}, "pma transfer-base"),
        ((), 100, {}, "pma nearest-t"),
        (("square",), 10, {"seconds": ["student"]}, "pma transfer-student eot nes spsa square"),
        (("random",), 10, {"preprocessing": ["preprocessing"]}, "pma bpda eot nes spsa square"),
    ],
)
def test_what_follows_is_chosen_by_what_is_known(flags, classes, given, names):
    assert " ".join(attack.name for attack in adaptive_suite(flags, classes, **given)) == names


def test_a_random_model_is_averaged_over_and_square_asks_more_than_in_autoattack():
    chosen = {a.name: a for a in adaptive_suite(["random"], 10, preprocessing=["clean"])}
    asked = [a.votes for a in chosen.values() if a.kind != "square"]
    assert len(asked) == 5 and set(asked) == {DRAWS} and DRAWS > 1 and chosen["bpda"].modules == ["clean"]
    assert chosen["square"].queries > 5000 and chosen["square"].restarts > 1
    assert adaptive_suite([], 10, preprocessing=["clean"])[1].votes == 1


def digits(n=60):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    data = DeviceData.of(pixels, np.zeros(n, dtype=np.int64), CPU)
    with torch.no_grad():
        data.labels = model(data.images / 255.0).argmax(1)
    return model, data


TWO = [
    PGD(name="weak", kind="pgd", steps=2, step_size="epsilon/4", start="uniform", restarts=1),
    PMA(name="pma", kind="pma", steps=10, start="uniform", restarts=1, votes=1),
]


def attacked(state=None, attacks=TWO, **more):
    model, data = digits()
    suite = Suite(seed=0, batch_size=16, attacks=attacks)
    terms = {"classes": 4, "epsilon": 0.2, "suite": suite, "identity": "this"}
    return evaluate_images(model, data, state_path=state, **terms, **more)


def test_each_attack_sees_what_the_ones_before_it_left_standing():
    alone, after = attacked(), attacked(cumulative=True)
    assert np.array_equal(alone.bits["weak"], after.bits["weak"])
    assert 0 < after.bits["pma"].sum() < after.bits["weak"].sum() < 60
    assert (after.bits["pma"] <= after.bits["weak"]).all()
    assert after.forwards < alone.forwards


def test_it_goes_on_where_it_stopped_with_the_same_bits(tmp_path, monkeypatch):
    whole = attacked(cumulative=True)
    save, kept = State.save, []

    def stopping(self, path):
        save(self, path)
        if len(kept) < 6:
            kept.append(self.batch)
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", stopping)
    for _ in range(6):
        with pytest.raises(KeyboardInterrupt):
            attacked(tmp_path / "state.npz", cumulative=True)
    again = attacked(tmp_path / "state.npz", cumulative=True)
    assert all(np.array_equal(whole.bits[name], again.bits[name]) for name in whole.bits)
    assert (whole.forwards, whole.backwards) == (again.forwards, again.backwards)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run folder of a network that knows the digits, and its record."""
    place = tmp_path_factory.mktemp("runs")
    plan = make_plan("erm", "digits-lt", **TERMS)
    folder = place / plan.run.folder_name()
    train_plan(plan, folder, CPU)
    loaded = verbs.load_model(folder, "cpu")
    record = verbs.finish_run(loaded, plan.task, folder, None, adapting.Silent())
    return folder, record


@pytest.fixture
def _short(monkeypatch):
    """Few steps, so that each test takes a second."""
    monkeypatch.setattr(student, "EPOCHS", 1)
    usual = adapting.adaptive_suite
    short = {"steps": 10, "draws": 3, "queries": 60}

    def shortened(*flags, **given):
        return [a.model_copy(update={n: v for n, v in short.items() if hasattr(a, n)}) for a in usual(*flags, **given)]

    monkeypatch.setattr(adapting, "adaptive_suite", shortened)


@pytest.mark.usefixtures("_short")
def test_a_masked_model_falls_to_the_honest_one_and_a_stopped_evaluation_goes_on(run, tmp_path, monkeypatch):
    honest = verbs.load_model(run[0], "cpu").model
    masked, terms = quantised(honest), {"protocol": "smoke", "limit_test": 50, "device": "cpu"}
    own = verbs.thorough(honest, "digits-lt", **terms)
    whole = verbs.thorough(masked, "digits-lt", base=honest, **terms)
    assert "zero gradients" in {flag.name for flag in whole.flags}
    assert whole.adaptive == ("pma", "transfer-base", "transfer-student", "bpda", "eot", "nes", "spsa", "square")
    left, lowest = int(whole.bits["square"].sum()), int(own.bits["pma"].sum())
    assert left <= lowest + 1 < whole.frozen.sum() - 5
    assert sum(whole.broken_after.values()) == whole.frozen.sum() - left
    assert float(whole.metrics("union").overall) == left / 50
    assert (
        set(whole.about.attacks) >= {"fgsm", *whole.adaptive} and "surrogate=" in whole.about.attacks["transfer-base"]
    )
    assert "transfer-base" in whole.csv()

    folder, save, suites = tmp_path / "out", State.save, []

    def stopping(self, path):
        save(self, path)
        if path.name.startswith(adapting.SUITE):
            suites.append(self.forwards)
        elif (stops := stopping.stops) < 3:
            stopping.stops = stops + 1
            raise KeyboardInterrupt

    stopping.stops = 0
    monkeypatch.setattr(State, "save", stopping)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            verbs.thorough(masked, "digits-lt", base=honest, folder=folder, **terms)
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"suite", "thorough", "student"}
    again = verbs.thorough(masked, "digits-lt", base=honest, folder=folder, **terms)
    assert suites == sorted(suites)  # in no session it was begun again
    assert list(whole.bits) == list(again.bits) and all(
        np.array_equal(whole.bits[n], again.bits[n]) for n in again.bits
    )
    assert (whole.forwards, whole.backwards) == (again.forwards, again.backwards)
    assert (whole.flags, whole.reliability, whole.about) == (again.flags, again.reliability, again.about)
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("way", ["detached", "beside the image", "outside of torch"])
def test_a_model_that_no_gradient_reaches_is_attacked_by_its_logits(run, way):
    """With the answers of the honest one: what finite differences and the student take shows that it is attacked."""
    honest = verbs.load_model(run[0], "cpu").model
    weight = torch.ones(1, requires_grad=True)

    def blind(x):
        logits = honest(x).detach()
        if way == "beside the image":
            return logits * weight
        return torch.from_numpy(logits.numpy()) if way == "outside of torch" else logits

    terms = {"protocol": "smoke", "limit_test": 20, "device": "cpu"}
    found = verbs.thorough(blind, "digits-lt", leave_out=["square"], **terms)
    assert "zero gradients" in {flag.name for flag in found.flags}
    assert {"eot", "nes", "spsa", "transfer-student"} <= set(found.adaptive)
    own = verbs.thorough(honest, "digits-lt", **terms)
    assert np.array_equal(found.bits["clean"], own.bits["clean"])
    assert found.broken_after["nes"] + found.broken_after["spsa"] + found.broken_after["transfer-student"] > 0
    assert found.metrics("union").overall >= own.metrics("union").overall


def test_logits_and_gradients_of_other_models_are_what_they_were(run):
    honest = verbs.load_model(run[0], "cpu").model
    x = torch.rand(5, 1, 8, 8)
    slopes = []
    for model in (honest, Attached(honest)):
        leaf = x.clone().requires_grad_(True)
        logits = model(leaf)
        slopes += [logits.detach(), *torch.autograd.grad(logits.square().sum(), leaf)]
    assert torch.equal(slopes[0], slopes[2]) and torch.equal(slopes[1], slopes[3])


@pytest.mark.usefixtures("_short")
def test_a_result_of_another_model_other_images_or_another_protocol_is_refused(run):
    folder, record = run
    honest = verbs.load_model(folder, "cpu").model
    other = verbs.load_model(folder, "cpu").model
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.01)
    terms = {"protocol": "smoke", "imbalance_ratio": 1, "limit_test": 100, "device": "cpu"}
    suite = verbs.evaluate(honest, "digits-lt", **terms)
    whole = verbs.thorough(honest, "digits-lt", before=suite, **terms)
    assert whole.adaptive and np.array_equal(whole.frozen, suite.frozen)

    def refused(says, model, before, **changed):
        with pytest.raises(UsageError, match=says):
            verbs.thorough(model, "digits-lt", before=before, **(terms | changed))

    refused("of a model with other weights", other, suite)
    for before in (suite, record):
        refused("of 100 test images, and not of these 30", honest, before, limit_test=30)
    refused("of another split of digits-lt", honest, suite, imbalance_ratio=2)
    refused("not of protocol digits-v0", honest, suite, protocol="digits-v0")
    for before in (replace(suite, about=None), record):
        refused("of another model: this one misclassifies", lambda x: honest(x).roll(1, 1), before)
    cut = {name: bits[:5] for name, bits in suite.bits.items()}
    refused("and not of these 100", honest, replace(suite, bits=cut))
    with pytest.raises(UsageError, match="with other weights"):
        weights = record.result.model_copy(update={"weights_sha256": "e" * 64})
        verbs.thorough(folder, before=record.model_copy(update={"result": weights}), limit_test=100, device="cpu")


def test_networks_that_are_not_finished_or_damaged_are_said_and_left_out(run, tmp_path):
    """The run that another is built on may be in training still, or gone."""
    section = run[1].run
    built = section.model_copy(update={"method": "crt", "base_key": section.key()})
    notes = Notes()
    assert adapting.beside(built, run[0].parent, notes)[0] == run[0] and not notes.lines
    assert adapting.beside(built, tmp_path, notes) == (None, {})
    assert f"ends in -{section.key()[:8]}" in notes.lines.pop()
    mine = tmp_path / section.folder_name()
    mine.mkdir()
    assert adapting.beside(built, tmp_path, notes) == (None, {})
    assert "has no network" in notes.lines.pop()
    (mine / "model.safetensors").write_bytes(b"half")
    assert adapting.beside(built, tmp_path, notes) == (None, {})
    assert len(notes.lines) >= 2 and "nothing is crafted on" in notes.lines[0]


LEFT_OUT = ("transfer-student", "eot", "nes", "spsa", "square")


class Notes(Silent):
    """What is said."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


@pytest.mark.usefixtures("_short")
def test_a_submodule_that_is_not_there_is_named(run):
    honest = verbs.load_model(run[0], "cpu").model
    with pytest.raises(UsageError, match=r"no submodule 'cleaner' that could preprocess; it has: backbone, head"):
        verbs.thorough(
            Gated(honest), "digits-lt", protocol="smoke", limit_test=20, device="cpu", preprocessing=["cleaner"]
        )


class Encoded(nn.Module):
    """A network behind an encoder that takes normalised pixels and rounds them to a few levels."""

    def __init__(self, model, shape=None):
        super().__init__()
        self.model, self.shape = model, shape
        self.encoder = Preprocessing(lambda z: torch.round(8 * (0.4 * z + 0.3)) / 8)
        self.preprocessing = Preprocessing(lambda x: x if shape is None else x.expand(-1, 2, -1, -1))

    def forward(self, z):
        return self.model(self.preprocessing(self.encoder(z))[:, :1])


@pytest.mark.usefixtures("_short")
def test_named_preprocessing_of_a_model_that_wants_normalised_input_is_taken_for_the_identity(run):
    honest = verbs.load_model(run[0], "cpu").model
    terms = {"protocol": "smoke", "limit_test": 50, "device": "cpu", "leave_out": LEFT_OUT}
    given = {"normalise": ([0.3], [0.4]), "preprocessing": ["encoder"]}
    result = verbs.thorough(Encoded(honest), "digits-lt", **terms, **given)
    own = verbs.thorough(honest, "digits-lt", **terms)
    left, lowest = int(result.bits["bpda"].sum()), int(own.bits["pma"].sum())
    assert result.adaptive == ("pma", "bpda") and left <= lowest + 1 < result.bits["pma"].sum() - 5
    assert "modules=['encoder']" in result.about.attacks["bpda"]


@pytest.mark.usefixtures("_short")
def test_preprocessing_that_bpda_cannot_pass_is_said_before_anything_is_attacked(run):
    """An error if somebody named it; what only happens to be called so is left out, in a line."""
    encoded, notes = Encoded(verbs.load_model(run[0], "cpu").model, shape=2), Notes()
    terms = {"protocol": "smoke", "limit_test": 20, "device": "cpu", "leave_out": LEFT_OUT, "progress": notes}
    terms |= {"normalise": ([0.3], [0.4])}
    with pytest.raises(UsageError, match=r"preprocessing turns images of shape \(1, 1, 8, 8\) into \(1, 2, 8, 8\)"):
        verbs.thorough(encoded, "digits-lt", preprocessing=["preprocessing"], **terms)
    assert not notes.lines
    assert verbs.thorough(encoded, "digits-lt", **terms).adaptive == ("pma",)
    assert notes.lines[0].startswith("without BPDA: preprocessing turns images")


def test_a_student_is_the_same_each_time(monkeypatch):
    model, data = digits(64)
    monkeypatch.setattr(student, "EPOCHS", 2)
    on = Target(model, 4, 0.05, LINF, 0, "cpu")
    learned, again = (student.distilled(on, data.images, "small") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(learned.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_a_student_learns_what_a_model_without_gradients_says(run):
    """On images that nobody showed it."""
    honest = verbs.load_model(run[0], "cpu").model
    task = verbs.task_of(verbs.load_model(run[0], "cpu").run)
    pixels = torch.from_numpy(task.source.train_pixels(task.split.train))
    on = Target(quantised(honest), 10, 0.05, LINF, 0, "cpu")
    learned = student.distilled(on, pixels[:400], "small")
    x = torch.from_numpy(task.source.test_pixels(task.split.test)).float() / 255
    with torch.no_grad():
        agreed = (learned(x).argmax(1) == honest(x).argmax(1)).float().mean()
    assert agreed > 0.6


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


@pytest.mark.usefixtures("_short", "judge_here")
def test_a_records_network_is_attacked_thoroughly(run):
    folder, record = run
    made = attacked_thoroughly(record, folder, Where("Jane", device="cpu"))
    assert made.kind == "thorough" and list(made.attacks) == ["pma"] and list(made.not_run) == ["bpda"]
    assert made.reliability == record.reliability
    assert made.places == np.flatnonzero(record.bits("union")).tolist()
    found = standing(record, [made])
    assert found.thorough and found.external and not found.disputed
    assert (0 if found.broken is None else found.broken.sum()) == sum(made.attacks.values())


def test_a_run_below_the_cut_is_given_up_and_one_above_it_is_not(run, tmp_path, monkeypatch):
    folder, record = run
    plan, place = make_plan("erm", "digits-lt", **TERMS), Place(runs_dir=folder.parent, race=2, device="cpu")
    monkeypatch.setattr(racing, "cut_of", lambda plan, place: 0.0)
    assert racing.given_up(plan, folder, place, adapting.Silent()) is None and not (folder / "bound.json").exists()
    monkeypatch.setattr(racing, "cut_of", lambda plan, place: 0.99)
    bound = racing.given_up(plan, folder, place, adapting.Silent())
    assert bound.accuracy < bound.high < 0.99 and racing.read_bound(folder) == bound
    assert bound.text.startswith("\u2264 ") and bound.text.endswith("below 99.0 of rank 2")
    monkeypatch.setattr(racing, "cut_of", lambda plan, place: None)
    assert racing.given_up(plan, folder, place, adapting.Silent()) is None


def test_a_bound_is_of_one_network_one_rank_and_a_board_that_has_not_fallen(run, tmp_path, monkeypatch):
    """And not just any file of this name."""
    folder = tmp_path / run[0].name
    shutil.copytree(run[0], folder)
    (folder / "record.json").unlink()
    plan, place = make_plan("erm", "digits-lt", **TERMS), Place(runs_dir=tmp_path, race=2, device="cpu")
    request = Request("erm", "digits-lt", **TERMS)
    job = Job.of("evaluate", plan.run, request, 0, place)
    other = Job.of("evaluate", plan.run, request, 0, place.model_copy(update={"race": 3}))
    alone = Job.of("evaluate", plan.run, request, 0, place.model_copy(update={"race": None}))
    monkeypatch.setattr(racing, "cut_of", lambda plan, place, known=None: 0.99)
    bound = racing.given_up(plan, folder, place, adapting.Silent())
    assert OnDisk().done(job) and not OnDisk().done(other) and not OnDisk().done(alone)
    stored = verbs.load_model(folder, "cpu")
    assert bound.weights_sha256 == network_sha256(folder) == stored.weights_sha256
    pieces = {job.id: Piece(job, (), plan)}
    assert racing.cuts_now(pieces, place) == {job.id: 0.99} and OnDisk({job.id: 0.99}).done(job)
    assert not OnDisk({job.id: bound.high}).done(job)  # the board's cut has fallen to it
    asked = []
    monkeypatch.setattr(racing, "evaluate", lambda *given, **terms: asked.append(given))
    assert racing.given_up(plan, folder, place.model_copy(update={"race": 3}), adapting.Silent()).rank == 3
    assert OnDisk().done(other) and not asked  # what PMA found is kept
    write_bound(bound.model_copy(update={"weights_sha256": "e" * 64}), folder)
    assert not OnDisk().done(job)
    with pytest.raises(AttributeError):  # it is attacked again
        racing.given_up(plan, folder, place, adapting.Silent())
    assert len(asked) == 1
    write_bound(bound, folder)
    (folder / "model.safetensors").unlink()
    assert not OnDisk().done(job)
    for content in ("{}", json.dumps(bound.model_dump(exclude={"weights_sha256"})), "half"):
        (folder / "bound.json").write_text(content)
        assert not OnDisk().done(job)


@pytest.mark.board
def test_the_cut_is_the_accuracy_at_a_rank_of_the_board(root, tmp_path):
    plan = make_plan("erm", "digits-lt")
    place = Place(runs_dir=tmp_path, results_dir=root / "results", race=5, device="cpu")
    found = next(b for b in boards(find_records([root / "results" / "records"])[0]) if b.main and b.usual)
    ranked = [entry for entry in found.entries if entry.rank is not None and entry.label != "erm"]
    assert racing.cut_of(plan, place) == pytest.approx(float(ranked[4].percent("union", "balanced")) / 100)
    assert racing.cut_of(plan, place.model_copy(update={"race": 1000})) is None
    assert racing.cut_of(plan, place.model_copy(update={"results_dir": None})) is None


@pytest.mark.usefixtures("_short", "judge_here")
def test_the_command_line(run, capsys, tmp_path):
    folder, record = run
    assert main(["eval", str(folder), "--quick", "--limit-test", "50", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "\u2264 pma" in out and "at most" in out and "union " not in out.replace("union: per-image", "")
    place = ["--runs-dir", str(folder.parent), "--results-dir", str(tmp_path), "--device", "cpu"]
    assert main(["eval", str(folder), "--thorough", *place]) == 0
    out = capsys.readouterr().out
    assert "pma: breaks" in out and (folder / "thorough.csv").exists()
    assert main(["record", "verify", str(folder), "--weights", str(folder), "--thorough", "--by", "Jane",
                 "--device", "cpu", "--results-dir", str(tmp_path)]) == 0  # fmt: skip
    (statement,) = (Path(tmp_path) / "verifications").glob("*-thorough-*.json")
    assert '"attacks":{"pma":' in statement.read_text()
    assert main(["eval", str(folder), "--base", "x"]) == 2
    assert "belong to --thorough" in capsys.readouterr().err


@pytest.mark.usefixtures("_short")
def test_no_evaluation_takes_anothers_state(run, capsys, tmp_path):
    """The run's own lies in its folder as evaluation.npz; what is asked for otherwise, of a part, has other names."""
    folder = tmp_path / run[0].name
    shutil.copytree(run[0], folder)
    (folder / "thorough.csv").unlink(missing_ok=True)
    own, foreign = folder / "evaluation.npz", folder / state_name("thorough", limit_test=20)
    for path in (own, foreign):
        path.write_bytes(b"somebody's state")
    for asked in (["--thorough"], ["--attack", "fgsm", "--output", str(folder)], ["--quick", "--output", str(folder)]):
        assert main(["eval", str(folder), *asked, "--limit-test", "30", "--device", "cpu"]) == 0, asked
        assert own.read_bytes() == foreign.read_bytes() == b"somebody's state"
        assert len(list(folder.glob("*.npz"))) == 2
    assert (folder / "thorough-first-30.csv").exists() and not (folder / "thorough.csv").exists()
    capsys.readouterr()
    names = {
        state_name("evaluation", **terms) for terms in ({}, {"limit_test": 20}, {"limit_test": 30}, {"search": "tf32"})
    }
    assert len(names) == 4 and state_name("suite", limit_test=None) == state_name("suite", attacks=())


def test_second_models_of_one_name_are_all_attacked_on(tmp_path):
    paths = [Path("a/model.safetensors"), Path("b/model.safetensors"), Path("at"), Path("base"), Path("lite:at")]
    found = adapting.named_apart([*paths, paths[0]], ["at"])
    assert found == {
        "model.safetensors": paths[0], "model.safetensors-2": paths[1], "at-2": paths[2], "base-2": paths[3],
        "lite:at": paths[4],
    }  # fmt: skip
    with pytest.raises(UsageError, match="no second model can be called base or student"):
        verbs.thorough(nn.Flatten(), "digits-lt", others={"base": nn.Flatten()})


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
