"""CUDA graphs while crafting, with a capture that behaves like torch's on a processor: static buffers, overwritten."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ltrobust_bench.api import cross_entropy
from ltrobust_bench.attacks.engine import ascend
from ltrobust_bench.compute.graphs import COMPARED, Replayed


class Static:
    """What ``torch.cuda.make_graphed_callables`` makes, without a GPU: it reads one buffer, and what it returns, logits
    and gradient, is overwritten by the next call.

    Args:
        fault: ``weights``: it keeps those it was captured with; ``images``: it keeps the first ones; ``gradient``: it
            gives no true one.
    """

    def __init__(self, fault="", model=None):
        self.fault, self.model, self.captured, self.replayed = fault, model, 0, 0

    def __call__(self, function, samples):
        self.captured += 1
        (static,) = samples
        with torch.no_grad():
            logits, back = function(static).clone(), torch.empty_like(static)
        outer, used = self, copy.deepcopy(self.model) if self.fault == "weights" else function

        class Graph(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                outer.replayed += 1
                if outer.fault != "images":
                    static.data.copy_(x)
                with torch.enable_grad():
                    ctx.images = static.detach().clone().requires_grad_(True)
                    ctx.logits = used(ctx.images)
                logits.copy_(ctx.logits.detach())
                return logits.detach()

            @staticmethod
            def backward(ctx, gradient):
                (found,) = torch.autograd.grad(ctx.logits, ctx.images, gradient)
                back.copy_(-found if outer.fault == "gradient" else found)
                return back.detach()

        return Graph.apply


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5)).requires_grad_(False)


def attacked(model, images=8, steps=10):
    x, y = torch.rand(images, 3, 4, 4, generator=torch.Generator().manual_seed(images)), torch.arange(images) % 5
    return ascend(model, x, y, objective=cross_entropy, epsilon=0.1, step_size=0.02, steps=steps, start="none")


def test_a_replayed_attack_is_the_attack_bit_for_bit():
    said, static, model = [], Static(), network()
    replayed = Replayed(model, said.append, static)
    for step in range(5):  # weights change in place between batches, as a copy's do
        assert torch.equal(attacked(replayed), attacked(model)), step
        with torch.no_grad():
            model[1].weight.mul_(0.9)
    compared = sum(call <= 50 for call in COMPARED)
    assert not said and static.captured == 1 and static.replayed == 50 + compared


def test_other_shapes_and_calls_without_a_gradient_are_computed_by_the_model():
    static, model = Static(), network()
    replayed = Replayed(model, print, static)
    with torch.no_grad():
        assert torch.equal(replayed(torch.ones(8, 3, 4, 4)), model(torch.ones(8, 3, 4, 4)))
    assert not static.captured
    attacked(replayed)
    before = static.replayed
    assert torch.equal(attacked(replayed, images=3), attacked(model, images=3))
    assert static.captured == 1 and static.replayed == before
    assert torch.equal(attacked(replayed), attacked(model)) and static.replayed > before
    # A run that goes on in the middle of an epoch may begin with its last, smaller batch.
    assert torch.equal(attacked(replayed, images=9), attacked(model, images=9)) and static.captured == 2
    before = static.replayed
    assert torch.equal(attacked(replayed), attacked(model)) and static.replayed == before


@pytest.mark.parametrize("fault", ["weights", "images", "gradient"])
def test_a_graph_that_is_not_the_network_is_left_out_in_one_line(fault):
    said, model = [], network()
    static = Static(fault, model)
    replayed = Replayed(model, said.append, static)
    for _ in range(5):
        wanted = attacked(model)
        if len(said):
            assert torch.equal(attacked(replayed), wanted)
        else:
            attacked(replayed)
        with torch.no_grad():
            model[1].weight.mul_(0.9)
    assert len(said) == 1 and said[0].startswith("without CUDA graphs while crafting: its ")
    replays = static.replayed
    attacked(replayed)
    assert static.replayed == replays and static.captured == 1


def test_a_capture_that_fails_is_left_out_in_one_line():
    def refuse(function, samples):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    said, model = [], network()
    replayed = Replayed(model, said.append, refuse)
    assert torch.equal(attacked(replayed), attacked(model))
    assert said == ["without CUDA graphs while crafting: operation not permitted when stream is capturing"]
