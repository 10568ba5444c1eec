"""Losses that are not finite, or finite and absurd: named, told, and undone where that was asked for."""

from __future__ import annotations

import pytest
import torch

from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.losses import LOOK, LossWatch, exploded
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import load_model

CPU = torch.device("cpu")


def plan(method="reat", epochs=2, **settings):
    batch = {"batch_size": 8, **settings}
    return make_plan(method, "digits-lt", protocol="smoke", epochs=epochs, limit_train=200, settings=batch)


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def spoil(monkeypatch, *steps):
    """Have the outer loss of these steps (from 1, over all epochs) be NaN; the images of each."""
    inner, seen, images = Step._loss, 0, []

    def loss(self):
        nonlocal seen
        seen += 1
        if seen not in steps:
            return inner(self)
        images.append(self.x)
        return inner(self) * float("nan")

    monkeypatch.setattr(Step, "_loss", loss)
    return images


def test_the_step_is_named_with_its_images_and_no_checkpoint_is_promised(tmp_path, monkeypatch):
    p = plan(method="at")
    index = p.task.split.train
    spoil(monkeypatch, 13)
    with pytest.raises(LTBenchError) as caught:
        train_plan(p, tmp_path, CPU)
    (line,) = str(caught.value).splitlines()
    assert f"the loss became nan in epoch 1, step 13 of {p.steps_per_epoch}" in line
    assert "there is no checkpoint yet" in line
    named = [int(number) for number in line.split("that step: ")[1].rstrip(".").split(", ")]
    assert len(named) == 8 and set(named) <= set(index.tolist())
    from ltrobust_bench.training.trainer import Session

    order = Session(p, tmp_path, CPU, Silent(), None).loader.order(1)
    assert named == index[order[96:104]].tolist()


def test_the_checkpoint_that_is_there_is_named(tmp_path, monkeypatch):
    p = plan()
    spoil(monkeypatch, p.steps_per_epoch + 1)
    with pytest.raises(LTBenchError, match=r"epoch 2, step 1 of .*the last good checkpoint is .*checkpoint-0001"):
        train_plan(p, tmp_path, CPU)


def test_losses_are_looked_at_every_few_steps_only(monkeypatch):
    """Each look waits for the device."""
    watch, looks, stack = LossWatch(0), 0, torch.stack

    def counted(tensors):
        nonlocal looks
        looks += 1
        return stack(tensors)

    monkeypatch.setattr(torch, "stack", counted)
    for step in range(5 * LOOK):
        if watch.add(torch.tensor(float("inf") if step == 47 else 1.0)):
            assert watch.not_finite() == ((47, float("inf")) if step == 49 else None)
    assert looks == 5


@pytest.mark.parametrize("how", ["skip-batch", "lower-lr"])
def test_a_step_is_undone_wholly(tmp_path, monkeypatch, how):
    """What comes after is as if the batch had not been there; memories and momentum, too."""
    p = plan(on_nan=how)
    notes, states = Notes(), []
    inner = Step.update

    def update(self):
        network, method = self.trainee.network, self.trainee.method
        states.append((ckpt.weights_sha256(network.state_dict()), method.memory["predicted"].current.clone()))
        return inner(self)

    monkeypatch.setattr(Step, "update", update)
    spoil(monkeypatch, 3, p.steps_per_epoch + 2)
    history = train_plan(p, tmp_path, CPU, notes).history
    (before, counts), (after, counts_after) = states[2], states[3]
    assert before == after and torch.equal(counts, counts_after) and states[4][0] != after
    assert [row["undone"] for row in history] == [1, 1]
    assert (tmp_path / "training.csv").read_text().splitlines()[0].endswith(",undone")
    assert sum("it was undone" in line for line in notes.lines) == 2
    rates = [row["lr"] for row in history]
    assert p.run.recipe.schedule.rate(p.run.recipe.lr, 1, 2, 1) / rates[1] == (2 if how == "lower-lr" else 1)


def test_a_training_that_is_undone_again_and_again_is_given_up(tmp_path, monkeypatch):
    p = plan(on_nan="skip-batch")
    spoil(monkeypatch, *range(4, 30))
    with pytest.raises(LTBenchError, match=r"step \d+ of .*\(3 steps of the epoch were undone\)"):
        train_plan(p, tmp_path, CPU)


def test_stop_is_no_part_of_a_run_and_the_others_are():
    given = [plan(), plan(on_nan="stop"), plan(on_nan="skip-batch"), plan(on_nan="lower-lr")]
    assert given[0].run == given[1].run and len({p.run.key() for p in given}) == 3
    assert "on_nan" not in given[1].run.overrides and given[2].run.overrides["on_nan"] == "skip-batch"


def test_an_option_of_the_command_line_is_the_setting(tmp_path, monkeypatch, capsys):
    from ltrobust_bench.cli.main import main
    from ltrobust_bench.training import estimate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimate, "_timed", lambda work, most: (1.0, 1))
    asked = ["run", "--method", "at", "--dataset", "digits-lt", "--protocol", "smoke", "--dry-run"]
    assert main([*asked, "--on-nan", "lower-lr"]) == 0
    assert "on_nan=lower-lr" in capsys.readouterr().out
    assert main(asked) == 0 and "on_nan" not in capsys.readouterr().out


def test_a_loss_that_exploded_and_stayed_finite_is_told_each_time(tmp_path):
    p = plan("erm", epochs=1, lr=100.0, weight_decay=0.0)
    for notes in (Notes(), Notes()):  # trained, and found finished
        result = train_plan(p, tmp_path, CPU, notes)
        assert result.exploded == [1]
        assert sum("flag: the loss exploded" in line and "epoch 1 of erm" in line for line in notes.lines) == 1
    assert load_model(result.model_path).exploded
    assert exploded([2.3, 22.0, 24.0, 2.3], classes=10) == [3]
