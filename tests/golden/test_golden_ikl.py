"""IKL-AT and GKL-AT agree with the official code: loss, class predictions, schedules, steps without and with AWP."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ltrobust_bench.baselines.ikl_at import method as ikl
from test_golden_data import rates
from test_golden_plugins import plugged
from test_golden_steps import build, run
from tiny import cases, close, shipped, tensor

from ltrobust_bench.api import AttackBudget, Output
from ltrobust_bench.cards import methods
from ltrobust_bench.protocol.schedule import IklCosine


@pytest.mark.proves("ikl-at")
@pytest.mark.parametrize("case", cases("ikl_loss"))
def test_ikl_loss(case):
    o, y = case["options"], torch.tensor(case["inputs"]["labels"])
    clean = tensor(case, case["inputs"]["logits_nat"], grad=True)
    adversarial = tensor(case, case["inputs"]["logits_adv"], grad=True)
    rows = tensor(case, case["inputs"]["class_weights"])[y]
    close(case, "sample_weights", rows)
    parts = (clean, adversarial, rows ** o.get("gamma", 1.0))
    close(case, "loss_sce", ikl.decoupled_divergence(*parts, 1.0, 0.0))
    close(case, "loss_wmse", ikl.decoupled_divergence(*parts, 0.0, 1.0))
    loss = ikl.decoupled_divergence(*parts, o["alpha"], o["beta"])
    close(case, "loss_robust", loss)
    if o["what"] == "outer":
        loss = loss + F.cross_entropy(clean, y)
    close(case, "loss", loss)
    gradients = torch.autograd.grad(loss, [clean, adversarial])
    close(case, "grad_logits_nat", gradients[0])
    close(case, "grad_logits_adv", gradients[1])


def close_rows(case, key, matrix, before):
    """A row that is not a number in the official code (null: no image of the class) must be the one before."""
    expected = case["expected"][key]
    known = [c for c, row in enumerate(expected) if row is not None]
    close(case, key, matrix[known], [expected[c] for c in known])
    for c in set(range(len(expected))) - set(known):
        torch.testing.assert_close(matrix[c], before[c], check_dtype=False)  # mixed with itself, it is rounded


@pytest.mark.proves("ikl-at")
@pytest.mark.parametrize("case", cases("ikl_memory"))
def test_ikl_class_predictions(case):
    o, previous = case["options"], case["inputs"]["previous"]
    classes = o["num_classes"]
    memory = ikl.ClassPredictions(classes, o["T"], o.get("m", 1.0), torch.zeros(1, dtype=torch.float64))
    if previous is not None:
        memory.matrix = tensor(case, previous)
    before = memory.matrix.clone()
    for batch in case["inputs"]["batches"]:
        logits = tensor(case, batch["logits_nat"])
        memory.on_step_end(SimpleNamespace(clean=Output(logits, logits)), torch.tensor(batch["labels"]), None)
        assert torch.equal(memory.matrix, before), "constant within an epoch"
    memory.on_epoch_end(1, None)
    close_rows(case, "class_weights", memory.matrix, before)


BUDGETS = {"high": (5, "4/255"), "low": (2, "8/255")}  # steps, step at the full radius


def close_known(case, key, found):
    """Of the epochs in which the official code does not fail (null)."""
    expected = case["expected"][key]
    known = [i for i, value in enumerate(expected) if value is not None]
    close(case, key, [found[i] for i in known], [expected[i] for i in known])


@pytest.mark.proves("ikl-at")
@pytest.mark.parametrize("case", cases("ikl_schedule"))
def test_ikl_schedule(case):
    o = case["options"]
    schedule = IklCosine(kind="ikl_cosine", warmup_epochs=o["lr_warmup"])
    close(case, "lr", rates(schedule, o["lr"], o["epochs"]))
    recipe = methods.get("ikl-at").card.recipe
    steps, step_size = BUDGETS[o["train_budget"]]
    if o["train_budget"] == "high":
        assert (recipe["attack"]["steps"], recipe["attack"]["step_size"]) == (steps, step_size)
    if (o["train_budget"], o["lr_warmup"], o["epochs"]) == ("high", 0, 200):
        assert IklCosine(**recipe["schedule"]) == schedule and recipe["epochs"] == o["epochs"]
        assert recipe["lr"] == o["lr"]
    ratio = {"4/255": 0.5, "8/255": 1.0}[step_size]
    given = AttackBudget(o["epsilon"], ratio * o["epsilon"], o["epsilon"])
    whole = {"inputs": {"network": {"params": {"fc.weight": [[0.0]] * 3}}}}
    budget = build("ikl-at", whole).attack_budget
    epochs = [SimpleNamespace(epoch=e, epochs=o["epochs"]) for e in range(1, o["epochs"] + 1)]
    found = [budget(given, torch.tensor([0]), ctx) for ctx in epochs]
    close_known(case, "epsilon", [b.epsilon for b in found])
    close_known(case, "step_size", [b.step_size for b in found])
    close_known(case, "num_steps", [steps] * o["epochs"])


def play(case, **changed):
    """A step by the official options; the recipe's step is stated at the full radius, as the card's is."""
    o = case["options"]
    share = o["epoch"] / o["epochs"]
    whole = {**case, "options": {**o, "step_size": o["step_size"] / share}}
    options = {"alpha": o["alpha"], "beta": o["beta"], "gamma": o.get("gamma", 1.0), "temperature": o["T"]}
    options |= {"mixing": o.get("m", 1.0), "attack": "joint" if o["attack_beta"] else "ce"}
    method = build("ikl-at", case, **{**options, **changed})
    memory = method.memory["predictions"]
    if case["inputs"]["class_weights"] is not None:
        memory.matrix = tensor(case, case["inputs"]["class_weights"])
    around = plugged(case, awp={"gamma": o["awp"]["gamma"]}) if o["awp"] else ()
    forwards = methods.get("ikl-at").card.recipe["bn_forwards"]
    run(whole, method, forwards, plugins=around, epoch=o["epoch"], epochs=o["epochs"])
    before = memory.matrix.clone()
    memory.on_epoch_end(o["epoch"], None)
    close_rows(case, "class_weights_next", memory.matrix, before)


@pytest.mark.proves("ikl-at")
@pytest.mark.parametrize("case", cases("ikl_step"))
def test_ikl_step(case):
    o = case["options"]
    assert o["attack_beta"] in (0.0, 1.0)
    assert (o["attack_alpha"], o["attack_gamma"]) == (1.0, 1.0) and o["epsilon_epoch"] == pytest.approx(
        o["epsilon"] * o["epoch"] / o["epochs"]
    )
    play(case)


MUTANTS = [
    # (what is missing, options that remove it, case)
    ("no squared differences", {"beta": 0.0}, "v1_cifar100_epoch120"),
    ("squared differences left out of the attack", {"attack": "ce"}, "v1_cifar100_epoch120"),
    ("squared differences in the attack", {"attack": "joint"}, "v2_cifar10_first_epoch"),
    ("the full radius", {"radius_ramp": False}, "v1_cifar100_epoch120"),
    ("no temperature", {"temperature": 1.0}, "v1_cifar100_epoch120"),
    ("no exponent", {"gamma": 1.0}, "v2_cifar100_awp_gamma0.4"),
    ("balanced softmax outside", {"outer": "bsl"}, "v1_cifar100_epoch120"),
]


@pytest.mark.mutant("ikl-at")
@pytest.mark.parametrize(("mutant", "changed", "name"), MUTANTS, ids=lambda v: str(v)[:40])
def test_ikl_mutant_is_caught(mutant, changed, name):
    case = shipped("ikl_step", name)
    case["inputs"].setdefault("counts", [9, 5, 3, 2, 1][: len(case["inputs"]["network"]["params"]["fc.bias"])])
    with pytest.raises(AssertionError):
        play(case, **changed)
