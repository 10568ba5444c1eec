"""Losses, weights and heads agree with the official functions on given numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ltrobust_bench.baselines.reat import method as reat
from ltrobust_bench.baselines.robal import method as robal
from ltrobust_bench.baselines.trades import method as trades
from tiny import cases, close, tensor

from ltrobust_bench.api import Output, TrainInfo
from ltrobust_bench.longtail import CosineHead, balanced_softmax, margin_cross_entropy


def labels(case):
    return torch.tensor(case["inputs"]["labels"])


def counts(case, key="counts"):
    return torch.tensor(case["inputs"][key], dtype=torch.float64)


@pytest.mark.parametrize("case", cases("balanced_softmax"))
def test_balanced_softmax(case):
    assert case["options"]["function"] in ("at_bsl.BSL", "reat.BSL", "balanced_softmax_loss", "robustlt.BSL")
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    criterion = balanced_softmax(counts(case), case["options"].get("tau_b", 1.0))
    loss = criterion(logits, labels(case))
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])
    if "per_sample" in case["expected"]:
        each = [criterion(logits[i : i + 1], labels(case)[i : i + 1]).item() for i in range(len(logits))]
        close(case, "per_sample", each)
        close(case, "sum", sum(each))


@pytest.mark.parametrize("case", cases("trades_loss"))
def test_trades_loss(case):
    clean = tensor(case, case["inputs"]["logits_nat"], grad=True)
    adversarial = tensor(case, case["inputs"]["logits_adv"], grad=True)
    outputs = SimpleNamespace(clean=Output(clean, clean), adversarial=Output(adversarial, adversarial))
    loss = trades.trades_loss(case["options"]["beta"])(outputs, labels(case), None)
    close(case, "loss", loss)
    gradients = torch.autograd.grad(loss, [adversarial, clean])
    close(case, "grad_logits_adv", gradients[0])
    close(case, "grad_logits_nat", gradients[1])


@pytest.mark.parametrize("case", cases("robal_loss"))
def test_robal_loss(case):
    o = case["options"]
    assert o["regulariser"] == "trades"
    clean = tensor(case, case["inputs"]["cos_nat"], grad=True)
    adversarial = tensor(case, case["inputs"]["cos_adv"], grad=True)
    margins = robal.class_margins(counts(case), o["m_0"], o["tau_m"], o["s"])
    bias = robal.class_bias(counts(case), o["tau_b"])
    close(case, "margins", margins)
    close(case, "bias", bias)
    close(case, "margin_loss", margin_cross_entropy(adversarial, labels(case), margins, o["s"], bias))
    outputs = SimpleNamespace(clean=Output(clean, clean), adversarial=Output(adversarial, adversarial))
    loss = robal.robal_loss(margins, bias, o["s"], o["beta"])(outputs, labels(case), None)
    close(case, "loss", loss)
    gradients = torch.autograd.grad(loss, [adversarial, clean])
    close(case, "grad_cos_adv", gradients[0])
    close(case, "grad_cos_nat", gradients[1])
    without = robal.robal_loss(margins, bias, o["s"], 0.0)(outputs, labels(case), None)
    close(case, "regulariser", (loss - without) / o["beta"])


@pytest.mark.parametrize("case", cases("reat_rbl_weights"))
def test_reat_attack_weights(case):
    memory = reat.PredictedCounts(counts(case))
    predicted = counts(case, "predicted_counts")
    memory.load_state_dict({"last": predicted, "current": torch.zeros_like(predicted)})
    close(case, "weights", memory.weights)
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = reat.rebalanced_cross_entropy(memory)(logits, labels(case), None).sum()
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.parametrize("case", cases("reat_tail"))
def test_reat_outer_loss(case):
    data = TrainInfo(counts(case), "golden", 1)
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    features = tensor(case, case["inputs"]["features"], grad=True)
    outputs = SimpleNamespace(adversarial=Output(logits, features))
    loss = reat.reat_loss(data, "official", "official")(outputs, labels(case), None)
    close(case, "loss", loss)
    without = reat.reat_loss(data, "off", "official")(outputs, labels(case), None)
    close(case, "balanced_softmax", without)
    close(case, "tail", loss - without)
    # Zero features gradient where no tail class is in the batch.
    gradients = torch.autograd.grad(loss, [logits, features], allow_unused=True)
    close(case, "grad_logits", gradients[0])
    close(case, "grad_features", gradients[1])
    memory = reat.PredictedCounts(counts(case))
    memory.on_step_end(outputs, labels(case))
    close(case, "predicted_counts", memory.current)


@pytest.mark.parametrize("case", cases("cosine_head"))
def test_cosine_head(case):
    o, expected = case["options"], case["expected"]
    if o["function"] == "robal.UniMarginLoss":
        logits = tensor(case, case["inputs"]["logits"], grad=True)
        margins = torch.full((logits.shape[1],), o["margin"], dtype=logits.dtype)
        loss = margin_cross_entropy(logits, labels(case), margins, scale=o["scale"])
        close(case, "loss", loss)
        close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])
        return
    features = tensor(case, case["inputs"]["features"], grad=True)
    weight = tensor(case, case["inputs"]["weight"])
    scale = 1.0 if o["function"] == "robal.PostProc_Classifier" else o["scale"]
    head = CosineHead(weight.shape[1], weight.shape[0], scale, o.get("gamma", 0.0)).double()
    head.load_state_dict({"weight": weight})
    logits = head(features)
    if o["function"] == "robal.PostProc_Classifier":
        data = TrainInfo(counts(case), "golden", 1)
        close(
            case,
            "logits",
            robal.boundary_adjustment(head, data, scale=o["scale"], tau_p=o["tau_p"])(features),
        )
        return
    assert o["function"] in ("robal.Cos_Classifier", "robal.CosPlus_Classifier")
    close(case, "logits", logits)
    cotangent = tensor(case, case["inputs"]["cotangent"])
    gradients = torch.autograd.grad(logits, [features, head.weight], cotangent)
    close(case, "grad_features", gradients[0])
    close(case, "grad_weight", gradients[1])
    assert set(expected) == {"logits", "grad_features", "grad_weight"}
