"""A training batch that passes through its network in parts (``--accumulate``)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltrobust_bench.api import Method
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.forwards import Forwards
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.registry import Registration, models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.randomness import seeded
from ltrobust_bench.training.build import (
    build_method,
    build_network,
    build_plugins,
    companion_of,
    network_of,
    trained_parameters,
)
from ltrobust_bench.training.estimate import _stand_in
from ltrobust_bench.training.step import Step, Trainee

CPU = torch.device("cpu")
TASK = make_plan("at", "digits-lt", protocol="smoke").task
CHOSEN = TASK.split.train[::25][:23]
X = torch.from_numpy(TASK.source.train_pixels(CHOSEN)).float().div(255)
Y = torch.from_numpy(TASK.source.train_labels[CHOSEN])


class NoNorm(nn.Module):
    """Two convolutions, without batch norm."""

    features = 12

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU())

    def forward(self, x):
        return self.layers(x).mean(dim=(2, 3))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(models._entries, "no-norm", Registration("no-norm", lambda shape: NoNorm()))


def after_a_step(slug, parts, around=(), model="no-norm"):
    """Loss, crafted images and weights of one step of a method, in so many parts."""
    plan = make_plan(slug, "digits-lt", protocol="smoke", plugins=around, model=model)
    run, shape = plan.run, TASK.spec.shape
    recipe = run.recipe.model_copy(update={"accumulate": parts})
    method, info = build_method(slug, run.options, run.train_counts, run.dataset, max(1, recipe.epochs), CPU)
    torch.manual_seed(1)
    network, companion = network_of(run, shape, method), companion_of(run, shape, method)
    teacher = _stand_in(plan.base, CPU) if plan.base and plan.card.base.role == "teacher" else None
    optimizer = torch.optim.SGD(trained_parameters(network, method, companion), lr=0.1)
    trainee = Trainee(
        network, method, recipe, optimizer, Counter(), build_plugins(run.plugins, run.options, info), teacher,
        Policy(), companion=companion,
    )  # fmt: skip
    torch.manual_seed(2)
    step = Step(trainee, X, Y, (X.flip(0), Y.flip(0)), epoch=2, epochs=2)
    crafted = step.craft(generator=seeded(0, "test"))
    loss = step.update()
    weights = torch.cat([p.detach().flatten() for p in (*network.parameters(), *(companion or network).parameters())])
    return loss, crafted, weights, trainee.counter


@pytest.mark.parametrize(
    ("slug", "around"),
    [*((slug, ()) for slug in methods.names()), *(("reat", (plugin,)) for plugin in plugins.names())],
)
def test_without_batch_norm_a_step_in_parts_is_the_step_of_the_whole_batch(slug, around):
    whole, parts = (after_a_step(slug, number, around) for number in (1, 3))
    for name, one, other in zip(("loss", "images", "weights"), whole, parts, strict=False):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=2e-6, msg=lambda said, name=name: f"{name}: {said}")
    assert parts[3] == whole[3], "what is passed again in the backward pass is no more images"


def test_batch_norm_sees_a_part_and_moves_once_for_each():
    torch.manual_seed(0)
    network = build_network("small", (1, 8, 8), 10, Method()).train()
    again = build_network("small", (1, 8, 8), 10, Method()).train()
    again.load_state_dict(network.state_dict())
    forwards = Forwards(network, Policy(), parts=3)
    logits = forwards.outputs(X).logits
    wanted = torch.cat([again(part) for part in X.tensor_split(3)])
    assert torch.equal(logits, wanted)
    logits.square().sum().backward()
    wanted.square().sum().backward()
    for (name, one), other in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), f"{name}: the second pass of a part moves nothing"
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_a_part_is_computed_again_in_the_mode_that_it_was_computed_in():
    network = build_network("small", (1, 8, 8), 10, Method())
    forwards = Forwards(network, Policy(), parts=4)
    x = X.clone().requires_grad_(True)
    network.eval()
    logits = forwards.logits(x)
    network.train()
    (found,) = torch.autograd.grad(logits.square().sum(), x)
    network.eval()
    (wanted,) = torch.autograd.grad(network(x).square().sum(), x)
    torch.testing.assert_close(found, wanted)
    assert not network.training


def test_one_part_at_a_time_is_in_memory():
    seen = []
    network = build_network("no-norm", (1, 8, 8), 10, Method())
    network.backbone.layers[0].register_forward_hook(lambda module, given, output: seen.append(len(given[0])))
    Forwards(network, Policy(), parts=4).outputs(X).logits.sum().backward()
    sizes = [len(part) for part in X.tensor_split(4)]
    assert seen == sizes + sizes[::-1] and min(sizes) > 1, "each is computed again when its turn comes"


def test_what_it_can_not_be_is_one_line():
    with pytest.raises(UsageError, match="fewer than two of 64 images"):
        make_plan("at", "digits-lt", protocol="smoke", settings={"accumulate": 33})
    with pytest.raises(UsageError, match="leave it out, or --compile"):
        Forwards(build_network("no-norm", (1, 8, 8), 10, Method()), Policy(compile=True), parts=2)
    plan = make_plan("at", "digits-lt", protocol="smoke", settings={"accumulate": "4"})
    assert plan.run.off_recipe and plan.run.overrides == {"accumulate": 4} and plan.run.recipe.accumulate == 4
    usual = make_plan("at", "digits-lt", protocol="smoke")
    assert make_plan("at", "digits-lt", protocol="smoke", settings={"accumulate": 1}).run.key() == usual.run.key()
