"""Losses, weights and heads agree with the official functions on given numbers."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ltrobust_bench.baselines.cdt import method as cdt
from ltrobust_bench.baselines.cfa import method as cfa
from ltrobust_bench.baselines.dafa import method as dafa
from ltrobust_bench.baselines.focal import method as focal
from ltrobust_bench.baselines.lws import method as lws
from ltrobust_bench.baselines.mart import method as mart
from ltrobust_bench.baselines.reat import method as reat
from ltrobust_bench.baselines.robal import method as robal
from ltrobust_bench.baselines.taet import method as taet
from ltrobust_bench.baselines.tau_norm import method as tau_norm
from ltrobust_bench.baselines.tde import method as tde
from ltrobust_bench.baselines.trades import method as trades
from tiny import cases, close, dtype_of, same, shipped, tensor

from ltrobust_bench.api import Method, Network, Output, TrainInfo
from ltrobust_bench.cards import methods
from ltrobust_bench.longtail import (
    ClassAware,
    CosineHead,
    balanced_softmax,
    class_temperatures,
    effective_weights,
    ldam_margins,
    margin_cross_entropy,
    sigmoid_focal,
    softmax_focal,
)
from ltrobust_bench.training.build import inherit, trained_parameters


def labels(case):
    return torch.tensor(case["inputs"]["labels"])


def counts(case, key="counts"):
    return torch.tensor(case["inputs"][key], dtype=torch.float64)


@pytest.mark.proves("at-bsl", "reat", "selfdistill")
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


@pytest.mark.proves("trades")
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


@pytest.mark.proves("robal")
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
    without, once = (robal.robal_loss(margins, bias, o["s"], beta)(outputs, labels(case), None) for beta in (0.0, 1.0))
    close(case, "regulariser", once - without)


@pytest.mark.proves("reat")
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


@pytest.mark.mutant("reat")
def test_reat_mutant_without_attack_weights_is_caught():
    case = shipped("reat_rbl_weights")
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = F.cross_entropy(logits, labels(case), reduction="sum")
    with pytest.raises(AssertionError):
        close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("reat")
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
    memory.on_step_end(outputs, labels(case), None)
    close(case, "predicted_counts", memory.current)


@pytest.mark.proves("cosine", "robal")
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
    head = CosineHead(weight.shape[1], weight.shape[0], scale, o.get("gamma", 0.0)).to(dtype_of(case))
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


@pytest.mark.proves("logit-adjust")
@pytest.mark.parametrize("case", cases("logit_adjust", where="outer"))
def test_logit_adjustment(case):
    """Outer logit adjustment is balanced softmax: the constant ln N on all logits changes nothing."""
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = balanced_softmax(counts(case), case["options"]["tau"])(logits, labels(case))
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("ldam")
@pytest.mark.parametrize("case", [c for f in ("robal.LDAMLoss", "ldam.LDAMLoss") for c in cases("ldam", function=f)])
def test_ldam(case):
    margins = ldam_margins(counts(case), case["options"]["max_m"])
    close(case, "margins", margins)
    weight = case["inputs"].get("class_weight")
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = margin_cross_entropy(
        logits,
        labels(case),
        margins,
        scale=case["options"]["s"],
        class_weight=None if weight is None else tensor(case, weight),
    )
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("ldam")
@pytest.mark.parametrize("case", cases("ldam", function="ldam.normalised_head"))
def test_ldam_with_a_normalised_head(case):
    features = tensor(case, case["inputs"]["features"], grad=True)
    weight = tensor(case, case["inputs"]["weight"])
    head = CosineHead(weight.shape[1], weight.shape[0]).to(dtype_of(case))
    head.load_state_dict({"weight": weight})
    cosines = head(features)
    close(case, "cosines", cosines)
    margins = ldam_margins(counts(case), case["options"]["max_m"])
    loss = margin_cross_entropy(cosines, labels(case), margins, scale=case["options"]["s"])
    close(case, "loss", loss)
    gradients = torch.autograd.grad(loss, [features, head.weight])
    close(case, "grad_features", gradients[0])
    close(case, "grad_weight", gradients[1])


@pytest.mark.proves("ldam", "reweight")
@pytest.mark.parametrize("case", cases("drw_weights"))
def test_deferred_weights(case):
    o = case["options"]
    # RoBal counts epochs from 1 and switches at >=; LDAM's code counts from 0 and switches at 160.
    switches = zip(o.get("epoch_devides", [0, 160]), o.get("betas", [0, 0.9999]), strict=True)
    weights = effective_weights(counts(case), [beta for epoch, beta in switches if o["epoch"] >= epoch][-1])
    close(case, "weights", weights)
    if "logits" in case["inputs"]:
        logits = tensor(case, case["inputs"]["logits"], grad=True)
        loss = F.cross_entropy(logits, labels(case), weight=weights.to(logits))
        close(case, "loss", loss)
        close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("cb-focal", "rw-fine")
@pytest.mark.parametrize("case", cases("cb_focal"))
def test_class_balanced_focal(case):
    weights = effective_weights(counts(case), case["options"]["beta"])
    close(case, "weights", weights)
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = sigmoid_focal(logits, labels(case), case["options"]["gamma"], weights)
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("focal")
@pytest.mark.parametrize("case", cases("focal", function="robal.FocalLoss", use_sigmoid=True))
def test_focal(case):
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = sigmoid_focal(logits, labels(case), case["options"]["gamma"])
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


FORMS = {"robal.FocalLoss": "softmax", "ldam.FocalLoss": "ldam"}
SOFTMAX = [*cases("focal", function="robal.FocalLoss", use_sigmoid=False), *cases("focal", function="ldam.FocalLoss")]


@pytest.mark.proves("focal")
@pytest.mark.parametrize("case", SOFTMAX)
def test_focal_in_its_softmax_forms(case):
    logits, gamma = tensor(case, case["inputs"]["logits"], grad=True), case["options"]["gamma"]
    if "class_weight" in case["inputs"]:
        loss = softmax_focal(logits, labels(case), gamma, tensor(case, case["inputs"]["class_weight"]))
    else:
        loss = focal.focal_loss(FORMS[case["options"]["function"]], gamma)(logits, labels(case))
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("focal")
@pytest.mark.parametrize("case", cases("focal", function="robal.focal_init"))
def test_focal_starting_bias(case):
    close(case, "bias", focal.starting_bias(counts(case)))


@pytest.mark.proves("cdt")
@pytest.mark.parametrize("case", cases("cdt", function="robal.CDTLoss"))
def test_class_dependent_temperatures(case):
    temperatures = class_temperatures(counts(case), case["options"]["tau"])
    close(case, "temperatures", temperatures)
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = cdt.temperature_cross_entropy(temperatures)(logits, labels(case))
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("cdt")
@pytest.mark.parametrize("case", cases("cdt", function="robal.CDT_Classifier", posthoc=False))
def test_class_dependent_temperatures_divide_in_the_loss_only(case):
    """The official head divides in train mode; ours leaves the head plain, and the loss divides."""
    temperatures = class_temperatures(counts(case), case["options"]["tau"])
    weight, bias, features = (tensor(case, case["inputs"][k]) for k in ("weight", "bias", "features"))
    logits, y = F.linear(features, weight, bias), torch.arange(len(features)) % len(weight)
    close(case, "temperatures", temperatures)
    close(case, "logits_eval", logits)
    close(case, "logits_train", logits / temperatures)
    loss = cdt.temperature_cross_entropy(temperatures)(logits, y)
    assert torch.isclose(loss, F.cross_entropy(tensor(case, case["expected"]["logits_train"]), y), rtol=1e-6)


@pytest.mark.proves("taet")
@pytest.mark.parametrize("case", cases("harl"))
def test_harl(case):
    o = case["options"]
    logits = tensor(case, case["inputs"]["logits"], grad=True)
    loss = taet.harl(logits, labels(case), o["alpha"], o["beta"], o["gamma"])
    close(case, "loss", loss)
    close(case, "grad_logits", torch.autograd.grad(loss, logits)[0])


@pytest.mark.proves("mart")
@pytest.mark.parametrize("case", cases("mart_loss"))
def test_mart_loss(case):
    clean = tensor(case, case["inputs"]["logits_nat"], grad=True)
    adversarial = tensor(case, case["inputs"]["logits_adv"], grad=True)
    outputs = SimpleNamespace(clean=Output(clean, clean), adversarial=Output(adversarial, adversarial))
    loss = mart.mart_loss(case["options"]["beta"])(outputs, labels(case), None)
    close(case, "loss", loss)
    gradients = torch.autograd.grad(loss, [adversarial, clean])
    close(case, "grad_logits_adv", gradients[0])
    close(case, "grad_logits_nat", gradients[1])


@pytest.mark.proves("resample", "crt", "lws")
@pytest.mark.parametrize("case", cases("class_aware_sampler"))
def test_class_aware_sampler(case):
    labels_of = np.array(case["inputs"]["targets"])
    sampler = ClassAware()
    sampler._prepare(labels_of)
    if "shuffle_results" in case["inputs"]:
        results = iter(case["inputs"]["shuffle_results"])

        def shuffle(items):
            given = next(results)
            assert sorted(given) == sorted(items)
            items[:] = given
    else:
        shuffle = random.Random(case["options"]["seed"]).shuffle
    length = len(np.bincount(labels_of)) * int(np.bincount(labels_of).max())
    assert length == case["expected"]["length"]
    orders = [sampler.draw(length, shuffle) for _ in range(case["options"]["epochs"])]
    same(orders, case["expected"]["orders"])


@pytest.mark.proves("tde")
@pytest.mark.parametrize("case", cases("tde"))
def test_tde(case):
    o = case["options"]
    weight = tensor(case, case["inputs"]["weight"])
    head = tde.TDEHead(weight.shape[1], weight.shape[0], o["scale"], o["gamma"], o["mu"], o["alpha"]).to(dtype_of(case))
    head.load_state_dict({"weight": weight, "direction": torch.zeros_like(weight[0])})
    head.train()
    for k, batch in enumerate(case["inputs"]["train_features"]):
        close(case, "train_logits", head(tensor(case, batch)), case["expected"]["train_logits"][k])
        close(case, "state_after", head.direction, case["expected"]["state_after"][k])
    head.eval()
    features = tensor(case, case["inputs"]["eval_features"])
    state = head.direction.clone()
    close(case, "eval_logits", head.inference(features) if o["posthoc"] else head(features))
    # Ours learns the direction from train-mode forwards only; the official code also from that one.
    assert torch.equal(head.direction, state)


@pytest.mark.proves("tau-norm")
@pytest.mark.parametrize("case", cases("tau_norm"))
def test_tau_norm(case):
    head = tau_norm.TauNormalised(tensor(case, case["inputs"]["weight"]), case["options"]["tau"])
    if "weight" in case["expected"]:
        close(case, "weight", head.weight)
    close(case, "logits", head(tensor(case, case["inputs"]["features"])))


def scaled_head(case, with_bias):
    classes, features = np.shape(case["inputs"]["weight"])
    head = lws.ScaledHead(features, classes, with_bias).to(dtype_of(case))
    finished = torch.nn.Linear(features, classes).to(dtype_of(case))
    finished.load_state_dict({k: tensor(case, case["inputs"][k]) for k in ("weight", "bias")})
    network = Network(torch.nn.Sequential(torch.nn.Linear(1, 1)), head)
    inherit(network, {f"head.{k}": v for k, v in finished.state_dict().items()}, ("head",))
    with torch.no_grad():
        head.scales.copy_(tensor(case, case["inputs"]["scales"]))
    return network, head


@pytest.mark.proves("lws")
@pytest.mark.parametrize("case", cases("lws", function="robal.PostNorm_Classifier"))
def test_lws_steps(case):
    """The factors alone learn, by SGD with weight decay on them."""
    network, head = scaled_head(case, with_bias=False)
    chosen = trained_parameters(network, Method(trains=lws.scales_only))
    optimizer = torch.optim.SGD(chosen, **case["options"]["optimizer"])
    before = head.weight.clone()
    for expected in case["expected"]["steps"]:
        logits = head(tensor(case, case["inputs"]["features"]))
        loss = F.cross_entropy(logits, labels(case))
        optimizer.zero_grad()
        loss.backward()
        for key, value in expected.items():
            if key in ("logits", "loss"):
                close(case, key, {"logits": logits, "loss": loss}[key], value)
            elif key.startswith("grad"):
                close(case, key, head.scales.grad, value)
        optimizer.step()
        close(case, "scales", head.scales, expected["scales"])
    assert case["expected"]["weight_unchanged"] is torch.equal(head.weight, before)


@pytest.mark.proves("lws")
@pytest.mark.parametrize("case", cases("lws", function="classifier_balancing.DotProduct_Classifier"))
def test_lws_original_form(case):
    _, head = scaled_head(case, with_bias=True)
    logits = head(tensor(case, case["inputs"]["features"]))
    loss = F.cross_entropy(logits, labels(case))
    close(case, "logits", logits)
    close(case, "loss", loss)
    close(case, "grad_scales", torch.autograd.grad(loss, head.scales)[0])


def post_hoc(slug, case):
    """Logits of a finished linear head as the method deploys them."""
    classes, features = np.shape(case["inputs"]["weight"])
    head = torch.nn.Linear(features, classes).to(dtype_of(case))
    head.load_state_dict({k: tensor(case, case["inputs"][k]) for k in ("weight", "bias")})
    data = TrainInfo(counts(case), "golden", 0)
    method = methods.get(slug).factory()({"tau": case["options"]["tau"]}, data)
    network = Network(torch.nn.Identity(), head)
    return method.deploy(network, data)(tensor(case, case["inputs"]["features"]))


@pytest.mark.proves("logit-adjust-posthoc")
@pytest.mark.parametrize("case", cases("logit_adjust", where="posthoc"))
def test_post_hoc_logit_adjustment(case):
    close(case, "logits", post_hoc("logit-adjust-posthoc", case))


@pytest.mark.proves("cdt-posthoc")
@pytest.mark.parametrize("case", cases("cdt", function="robal.CDT_Classifier", posthoc=True))
def test_post_hoc_rescaling(case):
    """The official divisors are rounded to float32."""
    close(case, "logits", post_hoc("cdt-posthoc", case))
    close(case, "divisors", counts(case) ** case["options"]["tau"])


@pytest.mark.proves("cfa")
@pytest.mark.parametrize("case", cases("cfa", what="schedule"))
def test_cfa_schedule(case):
    o, accuracy = case["options"], tensor(case, case["inputs"]["robust_accuracy"])
    close(case, "epsilon", cfa.class_radius(o["epsilon"], accuracy, o["lambda_1"]))
    close(case, "beta", cfa.class_weight(o["beta"], accuracy, o["lambda_2"]))


@pytest.mark.proves("dafa")
@pytest.mark.parametrize("case", cases("dafa", what="weights"))
def test_dafa_weights(case):
    given = tensor(case, case["inputs"]["adversarial_probabilities"])  # rounded, so not quite of sum 1
    similarity = torch.stack([given[labels(case) == c].mean(dim=0) for c in range(given.shape[1])])
    weights = dafa.class_weights(similarity, case["options"]["lambda"])
    close(case, "weights", weights)
    memory = dafa.Similarity(given.shape[1], 1, case["options"]["lambda"], given)
    memory.on_step_end(SimpleNamespace(adversarial=Output(given.log(), given)), labels(case), None)
    memory.on_epoch_end(1, None)
    assert torch.allclose(memory.weights, weights, rtol=1e-4)
