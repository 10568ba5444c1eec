"""Batch norm's running statistics taken anew after training: from which images, at which cost, and nothing else."""

from __future__ import annotations

import pytest
import torch
from stopping import StopAfter

from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.registry import Registration, models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.training import recalibration, trainer
from ltrobust_bench.training.checkpoint import read_model
from ltrobust_bench.training.recalibration import recalibrate
from ltrobust_bench.training.trainer import Session, train_plan

CPU = torch.device("cpu")
ATTACK_STEPS = 2


def plan(kind, method="at", epochs=2, **request):
    settings = {} if kind is None else {"recalibrate_bn": kind}
    asked = {"protocol": "smoke", "limit_train": 100, "epochs": epochs, **request}
    return make_plan(method, "digits-lt", settings=settings, **asked)


def weights(result):
    return read_model(result.model_path)[0]


def is_statistic(name):
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train_plan(plan(None), tmp_path_factory.mktemp("plain"), CPU)


@pytest.mark.parametrize(("kind", "passes"), [("clean", 1), ("adversarial", ATTACK_STEPS + 1)])
def test_statistics_alone_change_and_what_it_takes_is_counted(kind, passes, plain, tmp_path):
    p = plan(kind)
    result = train_plan(p, tmp_path, CPU)
    found, before = weights(result), weights(plain)
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert changed and all(map(is_statistic, changed))
    assert result.cost.forwards - plain.cost.forwards == p.train_size * passes
    assert result.cost.backwards - plain.cost.backwards == p.train_size * (passes - 1)
    assert result.cost.steps == plain.cost.steps
    assert {row["loss"] for row in result.history} == {row["loss"] for row in plain.history}


def test_none_is_no_term_of_a_run_and_another_one_is_a_setting_by_hand():
    assert plan("none").run.key() == plan(None).run.key() and not plan("none").run.overrides
    other = plan("clean").run
    assert other.key() != plan(None).run.key() and other.off_recipe
    assert other.overrides == {"recalibrate_bn": "clean"}


class Kept:
    """The session of a training."""

    def __init__(self, monkeypatch, folder, p):
        kept = []
        monkeypatch.setattr(trainer, "recalibrate", lambda *given: kept.append(given))
        session = Session(p, folder, CPU, trainer.Silent(), None)
        session.run()
        ((self.trainee, batches, self.noise, self.epoch),) = kept
        self.batches = list(batches)
        self.network = self.trainee.network


def test_they_are_the_mean_of_the_batches_by_hand(tmp_path, monkeypatch):
    kept = Kept(monkeypatch, tmp_path, plan("clean"))
    sizes = [len(x) for x, _, _ in kept.batches]
    assert len(sizes) == 2 and len(set(sizes)) == 2, "a smaller batch counts for less"
    norm = next(m for m in kept.network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    recalibrate(kept.trainee, kept.batches, kept.noise, kept.epoch)
    seen = []
    kept.network.eval()
    hook = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    for x, _, _ in kept.batches:
        kept.network(x)
    hook.remove()
    for moment, own in (("mean", norm.running_mean), ("var", norm.running_var)):
        values = [getattr(h, moment)(dim=(0, 2, 3)) for h in seen]
        assert torch.allclose(own, sum(n * v for n, v in zip(sizes, values, strict=True)) / sum(sizes), rtol=1e-4)
    assert norm.num_batches_tracked == 2 and norm.momentum == 0.1


def test_attacked_images_are_crafted_on_the_network_as_it_was(tmp_path, monkeypatch):
    kept = Kept(monkeypatch, tmp_path, plan("adversarial"))
    logits = kept.network.eval()(kept.batches[0][0])
    crafted = []
    inner = kept.trainee.forwards.logits

    def looked(x):
        crafted.append(inner(x))
        if len(crafted) == ATTACK_STEPS + 1:  # in the second batch the statistics are still those of before
            again = inner(kept.batches[0][0])
            assert torch.allclose(again, logits, atol=1e-6)
        return crafted[-1]

    monkeypatch.setattr(kept.trainee.forwards, "logits", looked)
    kept.trainee.forwards._itself.model = looked
    recalibrate(kept.trainee, kept.batches, kept.noise, kept.epoch)
    assert len(crafted) == 2 * ATTACK_STEPS
    assert not torch.allclose(kept.network.eval()(kept.batches[0][0]), logits, atol=1e-3)


@pytest.mark.parametrize("stop", [3, 4])
def test_resumed_equals_uninterrupted(stop, tmp_path):
    p = plan("adversarial", method="reat", plugins=["ema"])
    whole = train_plan(p, tmp_path / "whole", CPU)
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, tmp_path / "parts", CPU, StopAfter(stop - 1))
    parts = train_plan(p, tmp_path / "parts", CPU)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and parts.cost.forwards == whole.cost.forwards


def test_clean_images_are_those_that_were_drawn_and_not_mixtures_of_them(tmp_path, monkeypatch):
    found = []
    for name, plugged in (("alone", []), ("mixed", ["mixup"])):
        kept = Kept(monkeypatch, tmp_path / name, plan("clean", plugins=plugged))
        kept.network.load_state_dict(found[0][0] if found else kept.network.state_dict())
        before = {n: v.clone() for n, v in kept.network.state_dict().items()}
        recalibrate(kept.trainee, kept.batches, kept.noise, kept.epoch)
        found.append((before, kept.network.state_dict()))
    assert all(torch.equal(value, found[1][1][n]) for n, value in found[0][1].items())
    assert not all(torch.equal(value, found[0][0][n]) for n, value in found[0][1].items())


def test_what_moves_statistics_before_an_attack_does_not_move_those_that_are_attacked(tmp_path, monkeypatch):
    """TAET's released code passes the clean batch in train mode first; each batch begins from the network as it was."""
    kept = Kept(monkeypatch, tmp_path, plan("adversarial"))
    recipe = kept.trainee.recipe.model_copy(update={"clean_forward_before": True})
    kept.trainee.recipe = recipe
    norm = next(m for m in kept.network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    first, before, inner = norm.running_mean.clone(), [], recalibration.Step

    def step(*given, **more):
        before.append(norm.running_mean.clone())
        return inner(*given, **more)

    monkeypatch.setattr(recalibration, "Step", step)
    recalibrate(kept.trainee, kept.batches, kept.noise, kept.epoch)
    assert len(before) == 2 and all(torch.equal(one, first) for one in before)


def test_a_network_without_running_statistics_is_refused(tmp_path, monkeypatch):
    def flat(shape):
        net = torch.nn.Flatten()
        net.features = shape[0] * shape[1] * shape[2]
        return net

    monkeypatch.setitem(models._entries, "flat", Registration("flat", flat))
    with pytest.raises(UsageError, match="recalibrate_bn=clean would change nothing: flat has no batch norm"):
        train_plan(plan("clean", model="flat"), tmp_path, CPU)
