"""Plug-ins that remember something and that give the network its last weights."""

from __future__ import annotations

import pytest
import torch
from ltrobust_bench.baselines.ema import method as ema

from ltrobust_bench.api import Plugin
from ltrobust_bench.contribute import conformance
from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import trainer
from ltrobust_bench.training.checkpoint import read_model
from ltrobust_bench.training.trainer import Session, train_plan

CPU = torch.device("cpu")


def plan(method="at", plugged=(), **settings):
    asked = {"protocol": "smoke", "limit_train": 100, "epochs": 3}
    return make_plan(method, "digits-lt", plugins=plugged, settings=settings, **asked)


def trained(folder, *given, **settings):
    result = train_plan(plan(*given, **settings), folder, CPU)
    return read_model(result.model_path)[0], result


def same(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("plugged", [["ema"], ["swa"], ["ema", "awp"]], ids="+".join)
def test_an_average_changes_what_is_deployed_and_not_the_training(plugged, plain, tmp_path):
    without = plain if "awp" not in plugged else trained(tmp_path / "host", "at", plugged[1:])
    weights, result = trained(tmp_path / "averaged", "at", plugged)
    losses = [[row["loss"] for row in one.history] for one in (result, without[1])]
    assert losses[0] == losses[1] and not same(weights, without[0])
    assert result.cost.forwards == without[1].cost.forwards


def test_an_average_that_forgets_everything_is_the_network(plain, tmp_path):
    for number, (slug, settings) in enumerate([("ema", {"ema.decay": 0}), ("swa", {"swa.start": 0.9})]):
        assert same(trained(tmp_path / str(number), "at", [slug], **settings)[0], plain[0]), (slug, settings)


def test_deployed_weights_are_the_average_of_what_the_training_went_through(tmp_path):
    """By hand, around a method with memories and with weights perturbed in each step."""
    seen, plugged = [], ["ema", "awp"]

    class Watches(Plugin):
        def on_step_end(self, outputs, y, network):
            seen.append({name: p.detach().clone() for name, p in network.named_parameters()})

    session = Session(plan("reat", plugged), tmp_path, CPU, Silent(), None)
    average = {name: p.detach().clone() for name, p in session.trainee.network.named_parameters()}
    session.trainee.plugins = (*session.trainee.plugins, Watches())
    found = read_model(session.run().model_path)[0]
    assert len(seen) == 6
    for t, weights in enumerate(seen):
        decay = min(0.999, (t + 1) / (t + 10))
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights.items()}
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in average.items())


def test_a_spoiled_step_is_undone_in_the_average_too(tmp_path, monkeypatch):
    from ltrobust_bench.training.step import Step

    inner, calls = Step._loss, []

    def loss(self):
        calls.append(1)
        return inner(self) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(Step, "_loss", loss)
    weights, result = trained(tmp_path, "at", ["ema"], on_nan="skip-batch")
    assert result.history[0]["undone"] == 1 and all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize(("method", "plugged", "said"), [("at", ["ema", "swa"], "swa"), ("cfa", ["ema"], "cfa")])
def test_two_averages_are_refused(method, plugged, said):
    with pytest.raises(UsageError, match=f"plug-in ema cannot be combined with {said}"):
        plan(method, plugged)


class Forgets(ema.AveragedOverSteps):
    def state_dict(self):
        return {"steps": torch.tensor(self.steps)}


def test_check_finds_a_plugin_that_does_not_keep_what_it_remembers(monkeypatch):
    monkeypatch.setattr(ema, "AveragedOverSteps", Forgets)
    subject = conformance.Subject("ema")
    found = conformance.examine(subject, "resumed equals uninterrupted")
    assert any("does a part remember something outside state_dict?" in line for line in found)


def test_state_is_named_by_the_plugins_place(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(trainer.ckpt, "save_checkpoint", lambda *given: kept.append(given[3]) or tmp_path)
    train_plan(plan("reat", ["swa", "awp"]), tmp_path, CPU)
    assert list(kept[0]["memory"]) == ["predicted", "plug-in 0", "plug-in 1"]
    assert kept[0]["memory"]["plug-in 0"]["count"] == 1 and kept[0]["memory"]["plug-in 1"] == {}
