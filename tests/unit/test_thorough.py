"""The adaptive suite: what is chosen, that it goes on where it stopped, what it breaks; races by its bound."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ltrobust_bench import verbs
from ltrobust_bench.attacks.ball import LINF
from ltrobust_bench.attacks.pgd import PGD
from ltrobust_bench.attacks.pma import PMA
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.cli.main import main
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import UsageError
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
from ltrobust_bench.records.io import find_records
from ltrobust_bench.records.verify import standing
from ltrobust_bench.report.aggregate import boards
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
