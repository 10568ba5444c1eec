"""Averages of weights agree with the official code's, on small state dicts and in whole trainings."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from ltrobust_bench.baselines.ema import method as ema
from ltrobust_bench.baselines.swa import method as swa
from tiny import SHIPPED, cases, close, dtype_of
from torch import nn

EPOCHS = 1000
NO_RAMP = -1_000_000
"""A warm-up that ended so long ago that the decay is its largest."""


def network(state, case):
    """A network of a case: a linear layer and a batch norm, whose counter alone is a whole number."""
    net = nn.ModuleDict({"fc": nn.Linear(3, 2), "bn": nn.BatchNorm1d(2)}).to(dtype_of(case))
    net.load_state_dict(
        {name: torch.tensor(value, dtype=net.state_dict()[name].dtype) for name, value in state.items()}
    )
    return net


def close_states(case, found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close(case, name, found[name], value)


def averaged_over_steps(case, plugin):
    """The averages after each of a case's states."""
    plugin.before_loss(SimpleNamespace(network=network(case["inputs"]["initial"], case)))
    o = case["options"]
    plugin.steps = o["updates_before"] if "updates_before" in o else o["first_global_step"] - 1
    for state in case["inputs"]["states"]:
        plugin.on_step_end(None, None, network(state, case))
        yield copy.deepcopy(plugin.average)


def play_seat(case, warmup=1, buffers=None, decay=None):
    o = case["options"]
    buffers = buffers or ("official" if o["buffer_ema"] else "copy")
    plugin = ema.AveragedOverSteps(EPOCHS, decay or o["alpha"], warmup, buffers)
    steps = range(o["updates_before"] + 1, o["updates_before"] + 1 + len(case["inputs"]["states"]))
    close(case, "decays", [ema.ramp(n, decay or o["alpha"], warmup) for n in steps])
    for found, expected in zip(averaged_over_steps(case, plugin), case["expected"]["averages"], strict=True):
        close_states(case, found, expected)


@pytest.mark.proves("ema")
@pytest.mark.parametrize("case", cases("weight_averaging", function="seat.EMA"))
def test_seat(case):
    play_seat(case)


@pytest.mark.proves("ema")
@pytest.mark.parametrize("case", cases("weight_averaging", function="hat.ema_update"))
def test_hat_second_path(case):
    o, expected = case["options"], case["expected"]
    begins = o["first_global_step"] >= o["warmup_steps"]
    assert o["dynamic_decay"] or begins, "ours has a constant decay only from the first step on"
    warmup = o["warmup_steps"] if o["dynamic_decay"] else NO_RAMP
    plugin = ema.AveragedOverSteps(EPOCHS, o["decay_rate"], warmup, "copy")
    for found, wanted in zip(averaged_over_steps(case, plugin), expected["averages"], strict=True):
        weights = {name for name, _ in network(case["inputs"]["initial"], case).named_parameters()}
        close_states(case, {n: found[n] for n in weights}, {n: wanted[n] for n in weights})
    close_states(case, found, expected["after_update_bn"])  # their buffers are the network's after each epoch


def play_swa(case, **changed):
    states, first, last = case["inputs"]["checkpoints"], case["options"]["start"], case["options"]["end"]
    epochs = len(states) + 1
    plugin = swa.AveragedOverEpochs(
        epochs, **{"start": (first - 0.5) / epochs, "decay": case["options"]["tau"], **changed}
    )
    for epoch, state in enumerate(states[:last], 1):
        plugin.on_epoch_end(epoch, network(state, case))
    close_states(case, plugin.average, case["expected"]["average"])


@pytest.mark.proves("swa")
@pytest.mark.parametrize("case", cases("weight_averaging", function="dkl.swa"))
def test_epochs(case):
    play_swa(case)


def one(function, place=0):
    return cases("weight_averaging", folder=SHIPPED, function=function)[place].values[0]


@pytest.mark.mutant("ema")
@pytest.mark.parametrize(
    ("mutant", "place", "changed"),
    [
        ("no ramp", 0, {"warmup": NO_RAMP}),
        ("a ramp a step late", 0, {"warmup": 2}),
        ("a lower cap", 1, {"decay": 0.99}),
        ("running statistics copied", 0, {"buffers": "copy"}),
        ("running statistics averaged that are copied", 2, {"buffers": "official"}),
    ],
)
def test_ema_mutant_is_caught(mutant, place, changed):
    with pytest.raises(AssertionError):
        play_seat(one("seat.EMA", place), **changed)


@pytest.mark.mutant("swa")
@pytest.mark.parametrize(
    ("mutant", "changed"), [("every epoch counts the same", {"decay": None}), ("the last epochs alone", {"start": 0.5})]
)
def test_swa_mutant_is_caught(mutant, changed):
    with pytest.raises(AssertionError):
        play_swa(one("dkl.swa"), **changed)


@pytest.mark.proves("swa")
def test_mean_over_epochs():
    """Izmailov et al.: the plain mean, counters cut when a network takes it."""
    case = one("dkl.swa")
    states = case["inputs"]["checkpoints"]
    plugin, net = swa.AveragedOverEpochs(len(states), 0.0, None), None
    for epoch, state in enumerate(states, 1):
        net = network(state, case)
        plugin.on_epoch_end(epoch, net)
    for name, value in net.state_dict().items():
        mean = torch.stack([torch.tensor(state[name], dtype=torch.float64) for state in states]).mean(dim=0)
        assert torch.allclose(value.double(), mean.trunc() if name.endswith("tracked") else mean)


@pytest.mark.proves("ema")
def test_the_ramp_reaches_its_cap_after_step_8990():
    assert [ema.ramp(n, 0.999) for n in (1, 2, 3)] == [1 / 10, 2 / 11, 3 / 12]
    assert ema.ramp(8990, 0.999) < 0.999 == ema.ramp(8991, 0.999) == ema.ramp(10**6, 0.999)
