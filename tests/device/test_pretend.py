"""The pretend GPU refuses what a GPU refuses, and writes down what makes one wait."""

from __future__ import annotations

import pytest
import torch
from pretend import WrongDevice, pretend_cuda
from torch import nn


def test_what_is_computed_is_what_the_cpu_computes():
    torch.manual_seed(0)
    network, x = (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2)),
        torch.rand(4, 1, 8, 8),
    )

    def step(place):
        torch.manual_seed(1)
        own = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2))
        own.load_state_dict(network.state_dict())
        own = own.to(place)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9)
        noise = torch.rand(4, 1, 8, 8, device=place, generator=torch.Generator(device=place).manual_seed(3))
        loss = nn.functional.cross_entropy(own(x.to(place) + noise), torch.tensor([0, 1, 1, 0], device=place))
        loss.backward()
        optimizer.step()
        return loss.item(), {name: value.cpu() for name, value in own.state_dict().items()}

    plain = step("cpu")
    with pretend_cuda():
        assert torch.cuda.is_available() and torch.rand(2, device="cuda").device == torch.device("cuda:0")
        there = step("cuda")
    assert plain[0] == there[0] and all(torch.equal(value, there[1][name]) for name, value in plain[1].items())
    assert not torch.cuda.is_available() and torch.rand(2).device.type == "cpu"


REFUSED = {
    "a sum": lambda there, here: there + here,
    "a product of matrices": lambda there, here: there[:, None] @ here[None],
    "stacked": lambda there, here: torch.stack([there, here]),
    "a CPU tensor by an index of the device": lambda there, here: here[(there > 0).long()],
    "a generator of the CPU": lambda there, here: torch.rand(2, device="cuda", generator=torch.Generator()),
    "a generator of the device": lambda there, here: torch.rand(2, generator=torch.Generator("cuda")),
    "draws into it by the CPU's": lambda there, here: there.uniform_(generator=torch.Generator()),
    "a scalar of the device times a vector": lambda there, here: there.mean() * here,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_mixes_devices_is_refused(case):
    with pretend_cuda(), pytest.raises(WrongDevice):
        REFUSED[case](torch.rand(3, device="cuda"), torch.rand(3))


ALLOWED = {
    "a number of the CPU": lambda there, here: there * here[0],
    "an index of the CPU": lambda there, here: there[torch.tensor([0, 2])],
    "a copy": lambda there, here: there.copy_(here),
    "zeros like it": lambda there, here: torch.zeros_like(there) + there.new_ones(3),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_cuda_takes_is_taken(case):
    with pretend_cuda():
        assert ALLOWED[case](torch.rand(3, device="cuda"), torch.rand(3)).is_cuda


def test_a_tensor_of_the_device_is_no_array():
    with pretend_cuda(), pytest.raises(TypeError, match="numpy"):
        torch.rand(3, device="cuda").numpy()


WAITS = {
    "item": lambda t: t.sum().item(),
    "a branch": lambda t: bool((t > 0).all()),
    "a list": lambda t: t.tolist(),
    "nonzero": lambda t: t.nonzero(),
    "an index by booleans": lambda t: t[t > 0.5],
    "to the host": lambda t: t.cpu(),
    "formatted": lambda t: f"{t.sum():.3f}",
}
QUEUED = {
    "arithmetic": lambda t: (t * 2).softmax(0).argmax(),
    "where": lambda t: torch.where(t > 0.5, t, 0.0),
    "masked_fill": lambda t: t.masked_fill(t > 0.5, 0.0),
    "a mask that is filled": lambda t: t.__setitem__(t > 0.5, 0.0),
    "gather": lambda t: t.gather(0, t.argsort()),
    "one_hot": lambda t: nn.functional.one_hot(t.argsort(), 3),
}


@pytest.mark.parametrize("case", [*WAITS, *QUEUED])
def test_what_makes_the_device_wait(case):
    with pretend_cuda() as log:
        given = torch.rand(3, device="cuda")
        log.clear()
        (WAITS | QUEUED)[case](given)
    assert bool(log.waits) == (case in WAITS), log.waits


def test_copies_from_the_host_are_written_down():
    with pretend_cuda() as log:
        torch.rand(3).to("cuda")
        torch.tensor([1.0], device="cuda")
        assert sum(log.copies.values()) == 2 and not log.waits
