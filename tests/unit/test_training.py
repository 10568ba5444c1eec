"""The trainer: budget, exact resume at any moment, true counters, damaged checkpoints."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import zipfile

import pytest
import torch
from stopping import StopAfter

from ltrobust_bench.compute.counting import Counter, CountingModel
from ltrobust_bench.errors import CheckpointError, LTBenchError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.folder import locked
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import load_model

CPU = torch.device("cpu")


def plan(method="reat", **request):
    settings = {"protocol": "smoke", "epochs": 4, "limit_train": 100, **request}
    return make_plan(method, "digits-lt", **settings)


def latest(folder):
    """Last finished epoch with a checkpoint, 0 without one."""
    return max((int(p.name.removeprefix("checkpoint-")) for p in folder.glob("checkpoint-*")), default=0)


def digest(result):
    return ckpt.weights_sha256(ckpt.read_model(result.model_path)[0])


def test_budget_is_epochs_times_steps_whatever_the_last_batch(tmp_path):
    p = plan(epochs=3)
    assert p.train_size == 95 and p.steps_per_epoch == 2
    result = train_plan(p, tmp_path, CPU)
    assert result.cost.steps == p.budget == 6
    # Each step: 2 attack steps and one outer forward and backward.
    assert result.cost.forwards == result.cost.backwards == result.forwards_here == 3 * 95 * 3
    dropping = plan(settings={"drop_last": "true"})
    assert dropping.steps_per_epoch == 1
    assert train_plan(dropping, tmp_path / "drop", CPU).cost.forwards == 4 * 64 * 3


def test_a_last_batch_of_one_image_is_dropped(tmp_path):
    """Batch norm has no statistics of one value (ResNet-18 ends in 1x1 maps on 8x8 images)."""
    p = plan("at", model="resnet18", epochs=1, limit_train=70, settings={"batch_size": 23, "attack.steps": 1})
    assert p.train_size == 70 == 3 * 23 + 1 and p.steps_per_epoch == 3
    assert train_plan(p, tmp_path, CPU).cost.steps == 3


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_at_random_moments_equals_uninterrupted(tmp_path, seed):
    p, rng = plan(), random.Random(seed)
    whole = train_plan(p, tmp_path / "whole", CPU)
    folder, interruptions = tmp_path / "parts", 0
    per_epoch = whole.forwards_here // 4
    while True:
        before = latest(folder)
        try:
            result = train_plan(p, folder, CPU, StopAfter(rng.randint(1, 8)))
            break
        except KeyboardInterrupt:
            interruptions += 1
            assert latest(folder) >= before
            assert interruptions < 30
    assert interruptions
    assert digest(result) == digest(whole)
    assert result.cost.forwards == whole.cost.forwards  # repeated work is not counted as cost of the run
    assert result.forwards_here == (4 - before) * per_epoch
    assert result.history == whole.history
    assert not list(folder.glob("checkpoint-*")) and not list(folder.glob(".*.tmp"))


def test_resumed_process_repeats_at_most_one_epoch(tmp_path):
    p = plan()
    per_epoch = train_plan(p, tmp_path / "whole", CPU).forwards_here // 4
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, tmp_path / "parts", CPU, StopAfter(3 * p.steps_per_epoch + 1))  # in the fourth epoch
    resumed = train_plan(p, tmp_path / "parts", CPU)
    assert resumed.forwards_here == per_epoch


def test_finished_run_is_not_repeated(tmp_path):
    first = train_plan(plan(), tmp_path, CPU)
    again = train_plan(plan(), tmp_path, CPU)
    assert again.forwards_here == 0 and again.history == first.history


def test_seed_changes_the_weights_and_method_the_result(tmp_path):
    digests = {
        digest(train_plan(plan(m, seed=s), tmp_path / f"{m}{s}", CPU)) for m, s in (("at", 0), ("at", 1), ("reat", 0))
    }
    assert len(digests) == 3


def test_global_randomness_is_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_plan(plan(epochs=1), tmp_path, CPU)
    assert torch.equal(torch.rand(3), expected)


def test_counters_are_what_the_network_really_did(tmp_path, monkeypatch):
    """TRADES: natural logits once, 2 attack steps, clean and adversarial outer forward."""
    counter = Counter()
    from ltrobust_bench.training import trainer

    build = trainer.network_of

    def counting(*arguments):
        network = build(*arguments)
        inner = network.backbone
        network.backbone = CountingModel(inner, counter)
        return network

    monkeypatch.setattr(trainer, "network_of", counting)
    monkeypatch.setattr(trainer, "monitor", lambda *_: {"train_clean": 0.0, "train_robust": 0.0})
    result = train_plan(plan("trades", epochs=1), tmp_path, CPU)
    assert result.cost.forwards == counter.forwards == 95 * 5
    assert result.cost.backwards == counter.backwards == 95 * 4


def damage(checkpoint):
    """Change one bit of a checkpoint's weights."""
    weights = checkpoint / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)


def interrupted(folder, steps, **request):
    """A training that was interrupted after so many steps: its plan, and its checkpoints, the newest last."""
    p = plan(**request)
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, folder, CPU, StopAfter(steps))
    return p, sorted(folder.glob("checkpoint-*"))


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def test_a_damaged_checkpoint_costs_one_epoch_and_is_told_of(tmp_path):
    whole = train_plan(plan(), tmp_path / "whole", CPU)
    p, (before, newest) = interrupted(tmp_path / "parts", 3 * plan().steps_per_epoch + 1)
    assert (before.name, newest.name) == ("checkpoint-0002", "checkpoint-0003")
    damage(newest)
    notes = Notes()
    result = train_plan(p, tmp_path / "parts", CPU, notes)
    (line,) = [line for line in notes.lines if "damaged" in line]
    assert "checkpoint-0003" in line and "weights.safetensors has another SHA-256" in line
    assert line.endswith("going on from the one before it, checkpoint-0002")
    assert result.forwards_here == 2 * whole.forwards_here // 4
    assert digest(result) == digest(whole) and result.cost.forwards == whole.cost.forwards


def test_two_damaged_checkpoints_are_refused_in_one_line(tmp_path):
    p, checkpoints = interrupted(tmp_path, 3 * plan().steps_per_epoch + 1)
    for checkpoint in checkpoints:
        damage(checkpoint)
    says = "checkpoint-0003 is damaged .*SHA-256.*, and so is the one before it; delete that folder"
    with pytest.raises(CheckpointError, match=says):
        train_plan(p, tmp_path, CPU)
    assert sorted(tmp_path.glob("checkpoint-*")) == checkpoints
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)
    assert train_plan(p, tmp_path, CPU).cost.steps == p.budget


@pytest.mark.parametrize("steps", [0, 5])
def test_what_only_has_a_checkpoints_name_stops_nothing(tmp_path, steps):
    p, _ = interrupted(tmp_path, steps)
    (tmp_path / "checkpoint-9999").mkdir()
    half = tmp_path / "checkpoint-10000"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    notes = Notes()
    result = train_plan(p, tmp_path, CPU, notes)
    assert sum("no whole checkpoint: passed over" in line for line in notes.lines) == 2
    assert result.forwards_here == (4 - steps // p.steps_per_epoch) * result.cost.forwards // 4
    assert not list(tmp_path.glob("checkpoint-*"))


def test_every_damage_to_a_checkpoint_is_noticed(tmp_path):
    """Bytes of every file changed, cut off or gone: what is loaded is the one before, as it was."""
    p, (before, newest) = interrupted(tmp_path, 3 * plan().steps_per_epoch + 1)
    rng, kept = random.Random(0), tmp_path / "kept"
    shutil.copytree(newest, kept)
    for turn in range(60):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(kept, newest)
        path = newest / rng.choice(["weights.safetensors", "state.pt", "meta.json"])
        raw = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 1, 30])):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw[: rng.choice([len(raw), rng.randrange(len(raw))])] if turn % 3 else raw)
        epoch, weights, _ = ckpt.load_checkpoint(tmp_path, CPU)
        # In meta.json a changed bit may leave everything that is read as it was.
        assert epoch == 2 or (path.name == "meta.json" and epoch == 3)
        assert all(torch.isfinite(value).all() for value in weights.values())


def emptied(state):
    """The same archive, its pickle an order to return what is nowhere: torch's reader raises IndexError."""
    with zipfile.ZipFile(state) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(state, "w") as new:
        for name, content in contents.items():
            new.writestr(name, b"\x80\x02." if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("spoil", [lambda state: torch.save({"epoch": 1, "evil": print}, state), emptied])
def test_a_checkpoint_that_was_made_to_hurt_is_refused(tmp_path, spoil):
    """Pickled code, and what its reader does not expect, with digests that fit."""
    with pytest.raises(KeyboardInterrupt):
        train_plan(plan(), tmp_path, CPU, StopAfter(3))
    (folder,) = tmp_path.glob("checkpoint-*")
    spoil(folder / "state.pt")
    meta = (folder / "meta.json").read_text()
    old = json.loads(meta)["sha256"]["state.pt"]
    (folder / "meta.json").write_text(meta.replace(old, hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()))
    with pytest.raises(CheckpointError, match="is damaged"):
        train_plan(plan(), tmp_path, CPU)


def test_a_checkpoint_that_memory_does_not_suffice_for_stays(tmp_path, monkeypatch):
    """It is not damaged: the one before it would cost an epoch, and damaged ones are removed."""
    _, (before, newest) = interrupted(tmp_path, 3 * plan().steps_per_epoch + 1)

    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(LTBenchError, match="memory does not suffice to read .*checkpoint-"):
        ckpt.load_checkpoint(tmp_path, CPU)
    assert before.is_dir() and newest.is_dir()


def test_damaged_or_foreign_model_is_one_line(tmp_path):
    result = train_plan(plan(), tmp_path / "a", CPU)
    raw = result.model_path.read_bytes()
    broken = tmp_path / "model.safetensors"
    for content, says in ((raw[:100], "no readable safetensors"), (b"", "no readable"), (raw[:-4], "no readable")):
        broken.write_bytes(content)
        with pytest.raises(CheckpointError, match=says):
            load_model(broken)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_model(tmp_path / "missing.safetensors")
    flipped = bytearray(raw)
    flipped[-1] ^= 1
    broken.write_bytes(flipped)
    with pytest.raises(CheckpointError, match="its weights are not those that were written"):
        load_model(broken)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, broken)
    with pytest.raises(CheckpointError, match="was not written by ltbench"):
        load_model(broken)
    weights, description = ckpt.read_model(result.model_path)
    description["run"]["model"] = "resnet18"
    ckpt.save_model(broken, weights, description)
    with pytest.raises(CheckpointError, match="are not those of resnet18"):
        load_model(broken)


def test_a_network_of_another_run_is_not_taken_for_this_one(tmp_path):
    result = train_plan(plan("at", imbalance_ratio=5), tmp_path / "a", CPU)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.safetensors").write_bytes(result.model_path.read_bytes())
    with pytest.raises(CheckpointError, match="belongs to another run"):
        train_plan(plan(), tmp_path / "b", CPU)


def test_natural_logits_never_move_the_running_statistics(tmp_path):
    from ltrobust_bench.training.step import Step, Trainee
    from ltrobust_bench.training.trainer import Session

    p = plan("trades")
    training = Session(p, tmp_path, CPU, Silent(), None)
    trainee: Trainee = training.trainee
    x, y, _ = next(training.loader.epoch(1))
    trainee.network.train()
    Step(trainee, x, y, epoch=1, epochs=1).natural_logits()
    assert trainee.network.backbone.norms[0].num_batches_tracked == 0 and trainee.network.training


def test_diverged_loss_is_reported_and_keeps_the_last_checkpoint(tmp_path):
    p = plan("at", settings={"lr": "1e30"})
    with pytest.raises(LTBenchError, match="loss became"):
        train_plan(p, tmp_path, CPU)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_folder_is_held_by_one_process(tmp_path):
    with locked(tmp_path), pytest.raises(UsageError, match="another process is working"):
        train_plan(plan(), tmp_path, CPU)


def test_batch_norm_statistics_move_once_per_step(tmp_path):
    """Minimal forwards: only what the loss needs is passed in train mode (methods.md 0.6)."""
    weights, _ = ckpt.read_model(train_plan(plan("at"), tmp_path / "at", CPU).model_path)
    assert weights["backbone.norms.0.num_batches_tracked"] == 4 * 2
    weights, _ = ckpt.read_model(train_plan(plan("trades"), tmp_path / "trades", CPU).model_path)
    assert weights["backbone.norms.0.num_batches_tracked"] == 2 * 4 * 2


def test_paper_track_runs_the_official_forwards(tmp_path):
    p = plan("robal", track="paper", limit_train=700, epochs=1)
    assert p.run.recipe.bn_forwards == ["adv", "nat", "nat", "adv"]
    assert p.run.recipe.attack.epsilon == pytest.approx(0.031 * 0.15 / (8 / 255))
    weights, _ = ckpt.read_model(train_plan(p, tmp_path, CPU).model_path)
    assert weights["backbone.norms.0.num_batches_tracked"] == 4 * p.steps_per_epoch


def test_a_run_with_a_holdout_is_watched_on_it_at_most_20_times(tmp_path):
    p = plan("erm", epochs=39, limit_train=None, holdout="val")
    history = train_plan(p, tmp_path, CPU).history
    watched = [row["epoch"] for row in history if "val_robust" in row]
    assert len(watched) == 20 and watched[-1] == 39
    last = history[-1]
    # 39 images are held out, so these are shares of 39, and nothing is robust that is not clean.
    assert last["val_robust"] <= last["val_clean"] and last["val_clean"] * 39 == pytest.approx(
        round(last["val_clean"] * 39)
    )
    header, *rows = (tmp_path / "training.csv").read_text().splitlines()
    assert header.endswith("train_robust,val_clean,val_robust") and len(rows) == 39
