"""The attacks agree with the official evaluation attacks from the same start."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny import cases, close, network, shipped, tensor

from ltrobust_bench.attacks.cw import cw, margin
from ltrobust_bench.attacks.fgsm import fgsm
from ltrobust_bench.attacks.mim import mim
from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.attacks.scaled_pgd import scaled_pgd


def attack(case, function, **settings):
    model = network(case).eval()
    x, y = tensor(case, case["inputs"]["x"]), torch.tensor(case["inputs"]["labels"])
    start = case["inputs"].get("x_start")
    settings = {k: v for k, v in settings.items() if v is not None}
    adversarial = function(
        model,
        x,
        y,
        epsilon=case["options"]["epsilon"],
        start="none" if start is None else tensor(case, start),
        **settings,
    )
    close(case, "x_adv", adversarial)
    logits = model(adversarial)
    close(case, "logits_adv", logits)
    assert logits.argmax(1).tolist() == case["expected"]["predictions_adv"]
    assert (logits.argmax(1) != y).sum() == case["expected"]["errors_adv"]
    assert (model(x).argmax(1) != y).sum() == case["expected"]["errors_clean"]


def steps(case):
    return {"steps": case["options"]["num_steps"], "step_size": case["options"]["step_size"]}


@pytest.mark.parametrize("case", cases("pgd"))
def test_pgd(case):
    attack(case, pgd, **steps(case))


@pytest.mark.parametrize("case", cases("fgsm"))
def test_fgsm(case):
    attack(case, fgsm, step_size=case["options"].get("step_size"))


@pytest.mark.parametrize("case", cases("mim"))
def test_mim(case):
    attack(case, mim, decay=case["options"]["decay"], **steps(case))


@pytest.mark.parametrize("case", cases("lsa"))
def test_scaled_pgd(case):
    attack(case, scaled_pgd, alphas=[case["options"]["alpha"]], **steps(case))


@pytest.mark.parametrize("case", cases("cw_loss"))
def test_cw(case):
    if "network" in case["inputs"]:
        attack(case, cw, kappa=case["options"]["kappa"], **steps(case))
        return
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    value = margin(logits, torch.tensor(case["inputs"]["labels"]), kappa=case["options"]["kappa"])
    reduce = {"robal.CWLoss": torch.mean, "at_bsl.cwloss": torch.sum, "robustlt.cw_loss": torch.sum}
    loss = reduce[case["options"]["function"]](value)
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


def test_a_wrong_alpha_is_noticed():
    case = shipped("lsa", alpha=0.1)
    with pytest.raises(AssertionError):
        attack(case, partial(scaled_pgd, alphas=[10.0]), **steps(case))
