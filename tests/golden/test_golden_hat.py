"""HAT agrees with the official code, on given logits and in whole steps with a helper of its own weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_golden_steps import build, run
from tiny import cases, close, network, same, shipped, tensor

from ltrobust_bench.api import Output
from ltrobust_bench.cards import methods

ROBUST = {"hat_loss": "kl", "at_hat_loss": "ce"}


def hat(case, **changed):
    o = case["options"]
    values = {"robust": ROBUST[o["function"]], "beta": o["beta"], "gamma": o["gamma"], "reach": o.get("h", 2.0)}
    classes = len(case["inputs"]["logits_nat"][0]) if "logits_nat" in case["inputs"] else None
    if classes is not None:
        case = {"inputs": {"network": {"params": {"fc.weight": [[0.0]] * classes}}}}
    return build("hat", case, **values, **changed)


@pytest.mark.proves("hat")
@pytest.mark.parametrize("case", cases("hat_loss"))
def test_loss(case):
    names = ("nat", "adv", "help")
    z = {name: tensor(case, case["inputs"][f"logits_{name}"], grad=True) for name in names}
    helper = tensor(case, case["inputs"]["helper_logits"])
    outputs = SimpleNamespace(
        x=torch.zeros(1),
        x_adv=torch.zeros(1),
        clean=Output(z["nat"], z["nat"]),
        adversarial=Output(z["adv"], z["adv"]),
        of=lambda images: Output(z["help"], z["help"]),
    )
    same(helper.argmax(dim=1).tolist(), case["expected"]["helper_labels"])
    ctx = SimpleNamespace(teacher_logits=lambda: helper)
    loss = hat(case).loss(outputs, torch.tensor(case["inputs"]["labels"]), ctx)
    close(case, "loss", loss)
    for name, gradient in zip(names, torch.autograd.grad(loss, [z[name] for name in names]), strict=True):
        close(case, f"grad_logits_{name}", gradient)


def helper_of(case):
    inputs = {**case["inputs"], "network": case["inputs"]["helper_network"]}
    return network({**case, "inputs": inputs}).eval().requires_grad_(False)


def play(case, minimal, teacher=None, **changed):
    forwards = methods.get("hat").card.recipe["bn_forwards"]
    method, helper = hat(case, **changed), teacher or helper_of(case)
    run(case, method, forwards, minimal=minimal, teacher=helper, views=["help"])


@pytest.mark.proves("hat")
@pytest.mark.parametrize("minimal", [False, True], ids=["official", "minimal"])
@pytest.mark.parametrize("case", cases("hat_step"))
def test_step(case, minimal):
    play(case, minimal)


@pytest.mark.proves("hat")
@pytest.mark.parametrize("case", cases("hat_step"))
def test_the_helpers_images_and_labels(case):
    """They lie h perturbations from the clean images, outside of [0, 1], too, and are labelled by the attacked ones."""
    helper, x = helper_of(case), tensor(case, case["inputs"]["x"])
    for step in case["expected"]["steps"]:
        x_adv = tensor(case, step["x_adv"])
        close(case, "x_help", x + case["options"]["h"] * (x_adv - x), step["x_help"])
        same(helper(x_adv).argmax(dim=1).tolist(), step["helper_labels"])


@pytest.mark.mutant("hat")
@pytest.mark.parametrize(
    ("mutant", "changed"),
    [
        ("no helper's term", {"gamma": 0.0}),
        ("images where the attacked ones are", {"reach": 1.0}),
        ("no robust term", {"beta": 0.0}),
        ("the other robust term", {"robust": "ce"}),
    ],
)
def test_hat_mutant_is_caught(mutant, changed):
    case = shipped("hat_step", function="hat_loss")
    values = {"beta": 2.5, "gamma": 0.5, "reach": 2.0, "robust": "kl", **changed}
    with pytest.raises(AssertionError):
        run(case, build("hat", case, **values), [], minimal=True, teacher=helper_of(case))


@pytest.mark.mutant("hat")
@pytest.mark.parametrize("mutant", ["the helper's labels of clean images"])
def test_hat_labels_mutant_is_caught(mutant):
    case = shipped("hat_step", function="at_hat_loss")
    clean = helper_of(case)(tensor(case, case["inputs"]["x"]))
    with pytest.raises(AssertionError):
        play(case, True, teacher=lambda images: clean)
