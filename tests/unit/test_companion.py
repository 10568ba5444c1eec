"""A second network beside the first, and groups of parameters with rates of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from stopping import StopAfter
from torch import nn

from ltrobust_bench.api import Group, Method, Network, linear
from ltrobust_bench.errors import ContractError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import trainer
from ltrobust_bench.training.build import trained_parameters
from ltrobust_bench.training.checkpoint import read_model, weights_sha256
from ltrobust_bench.training.losses import Undo
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import Session, train_plan

CPU = torch.device("cpu")


def plan(method="lbgat", plugged=(), **settings):
    asked = {"protocol": "smoke", "limit_train": 100, "epochs": 2}
    return make_plan(method, "digits-lt", plugins=plugged, settings=settings, **asked)


def session(folder, *given, **settings):
    return Session(plan(*given, **settings), folder, CPU, Silent(), None)


def step_of(one):
    return Step(one.trainee, *next(one.loader.epoch(1)), epoch=1, epochs=2)


def digests(one):
    return {name: weights_sha256(network.state_dict()) for name, network in one.trainee.networks.items()}


def test_both_are_trained_counted_and_the_first_alone_is_kept(tmp_path):
    one = session(tmp_path)
    before = digests(one)
    assert before["network"] != before["companion"]
    result = one.run()
    after = digests(one)
    assert before.keys() == after.keys() and all(before[name] != after[name] for name in before)
    n, epochs = one.plan.train_size, 2
    # The clean logits once, two attack steps, both batches, and the clean one by the companion.
    assert (result.cost.forwards, result.cost.backwards) == (epochs * n * (1 + 2 + 2 + 1), epochs * n * (2 + 2 + 1))
    assert weights_sha256(read_model(result.model_path)[0]) == after["network"]


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_equals_uninterrupted_in_the_companion_too(stop, tmp_path, monkeypatch):
    ended = []
    inner = Session._finish
    monkeypatch.setattr(Session, "_finish", lambda self: ended.append(digests(self)) or inner(self))
    train_plan(plan(), tmp_path / "whole", CPU)
    with pytest.raises(KeyboardInterrupt):
        train_plan(plan(), tmp_path / "parts", CPU, StopAfter(stop))
    train_plan(plan(), tmp_path / "parts", CPU)
    assert ended[0] == ended[1] and "companion" in ended[0]


def test_a_step_that_is_undone_is_undone_in_the_companion(tmp_path):
    one = session(tmp_path)
    undo, before = Undo(one.trainee), digests(one)
    step_of(one).update()
    assert not undo.spoiled(torch.tensor(1.0))
    with torch.no_grad():
        next(one.trainee.companion.parameters()).fill_(float("inf"))
    assert undo.spoiled(torch.tensor(1.0))
    undo.put_back()
    assert digests(one) == before


@pytest.mark.parametrize("proxy", ["separate", "main_optimizer"])
def test_a_proxys_step_leaves_the_companion_where_it_is(proxy, tmp_path):
    one = session(tmp_path, "lbgat", ["awp"], **{"awp.proxy": proxy})
    step_of(one).update()  # gradients of both are left from it
    kept, seen = [p.detach().clone() for p in one.trainee.companion.parameters()], []
    inner = one.trainee.method.loss
    one.trainee.method = replace(one.trainee.method, loss=lambda *given: seen.append(moved(one, kept)) or inner(*given))
    step_of(one).update()
    assert seen == [False, False], "asked for by the proxy, and for the update after it"


def test_of_mixed_images_the_companion_is_asked_once(tmp_path):
    """The loss is asked for both labels; what it asks of the two batches is computed once."""
    one = session(tmp_path, "lbgat", ["mixup"])
    n = len(next(one.loader.epoch(1)).x)
    step_of(one).update()
    assert one.trainee.counter.forwards == n * 3
    norm = one.trainee.companion.backbone.norms[0]
    assert norm.num_batches_tracked == 1


def moved(one, kept):
    return any(not torch.equal(p, before) for p, before in zip(one.trainee.companion.parameters(), kept, strict=True))


def test_a_method_without_a_companion_has_none_to_ask(tmp_path):
    one = session(tmp_path, "at")
    one.trainee.method = Method(loss=lambda outputs, y, ctx: outputs.companion(outputs.x).logits.sum())
    with pytest.raises(ContractError, match="this method has no companion: it is a part of Method"):
        step_of(one).update()


def test_nothing_is_drawn_for_a_companion_that_is_not_there(tmp_path):
    """The first network's start, and so every run without a companion, is what it was."""
    alone, beside = session(tmp_path / "a", "trades"), session(tmp_path / "b", "lbgat")
    assert digests(alone)["network"] == digests(beside)["network"]


# Groups


def of_groups(*groups):
    def trains(network):
        return [*network.backbone.parameters(), *(Group([p], *terms) for p, terms in groups_of(network, groups))]

    return trains


def groups_of(network, groups):
    return zip(network.head.parameters(), groups, strict=True)


def test_a_group_has_its_share_of_the_rate_and_the_decay(tmp_path, monkeypatch):
    rates = []
    build = trainer.build_method

    def changed(*given):
        method, info = build(*given)
        return replace(method, trains=of_groups((0.5,), (0.0, 0.0))), info

    monkeypatch.setattr(trainer, "build_method", changed)
    one = session(tmp_path, "at", lr_schedule="cosine")
    inner = one._set_rate

    def noted(*given):
        rate = inner(*given)
        rates.append([group["lr"] / rate for group in one.trainee.optimizer.param_groups])
        return rate

    one._set_rate = noted
    bias = one.trainee.network.head.bias.detach().clone()
    one.run()
    assert len(rates) == 4 and all(found == pytest.approx([1.0, 0.5, 0.0]) for found in rates)
    decays = [group["weight_decay"] for group in one.trainee.optimizer.param_groups]
    assert decays == [one.plan.run.recipe.weight_decay, one.plan.run.recipe.weight_decay, 0.0]
    assert torch.equal(one.trainee.network.head.bias, bias), "a share of 0"


def test_a_step_by_groups_by_hand():
    network = Network(nn.Linear(2, 3), linear(3, 2))
    method = Method(trains=lambda n: [*n.backbone.parameters(), Group([n.head.weight], 0.1, 2.0)])
    moved = trained_parameters(network, method, None, 0.01)
    assert not network.head.bias.requires_grad and network.head.weight.requires_grad
    optimizer = torch.optim.SGD(moved, lr=1.0, weight_decay=0.01)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * group.get("lr_share", 1.0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    F.cross_entropy(network(torch.ones(2, 2)), torch.tensor([0, 1])).backward()
    optimizer.step()
    for name, rate, decay in (("backbone.weight", 0.5, 0.01), ("head.weight", 0.05, 0.02)):
        p = network.get_parameter(name)
        assert torch.allclose(p, before[name] - rate * (p.grad + decay * before[name]))


def test_without_groups_the_optimiser_has_one(tmp_path):
    for method in ("at", "lbgat"):
        assert len(session(tmp_path / method, method).trainee.optimizer.param_groups) == 1
