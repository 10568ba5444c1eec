"""RoBal (Wu et al., CVPR 2021): cosine head, class margins and bias, a TRADES-like term, boundary adjustment.

The network outputs unscaled cosines; these are what the training attack sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from ltrobust_bench.api import Method, Network, OuterLoss, Outputs, StepContext, TrainInfo
from ltrobust_bench.longtail import AffineLogits, CosineHead, kl_divergence, margin_cross_entropy


class Preset(NamedTuple):
    """The authors' values for one data set and variant."""

    m_0: float
    s: float
    tau_m: float
    tau_b: float
    beta: float
    gamma_w: float
    test_scale: float
    tau_p: float


PRESETS = {
    ("cifar10", "N"): Preset(0.1, 10, 0.0, 1.2, 6, 1 / 32, 10, 0.1),
    ("cifar10", "R"): Preset(0.1, 10, 0.3, 1.5, 6, 1 / 32, 1, 0.0),
    ("cifar100", "N"): Preset(0.2, 10, 0.0, 0.0, 3, 1 / 32, 10, 1.5),
    ("cifar100", "R"): Preset(0.3, 10, 0.0, 0.0, 6, 1 / 16, 10, 1.7),
}


def class_margins(counts: Tensor, m_0: float, tau_m: float, s: float) -> Tensor:
    """m_c = m_0 + (tau_m / s) ln(n_c / n_min): the margin grows with the class, [C]."""
    return m_0 + tau_m / s * (counts / counts.min()).log()


def class_bias(counts: Tensor, tau_b: float) -> Tensor:
    """b_c = tau_b ln pi_c, [C]."""
    return tau_b * (counts / counts.sum()).log()


def robal_loss(margins: Tensor, bias: Tensor, s: float, beta: float, kl_scale: float = 1.0) -> OuterLoss:
    """CE(s (cos(x_adv) - m_y 1_y) + b, y) + beta * mean KL(kl_scale cos(x) || kl_scale cos(x_adv))."""

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        adversarial = outputs.adversarial.logits
        margin_loss = margin_cross_entropy(adversarial, y, margins, scale=s, bias=bias)
        clean = outputs.clean.logits
        regulariser = kl_divergence(kl_scale * clean, kl_scale * adversarial, epsilon=1e-12).mean()
        return margin_loss + beta * regulariser

    return loss


def boundary_adjustment(network: Network, data: TrainInfo, *, scale: float, tau_p: float) -> nn.Module:
    """scale * cos - tau_p ln pi."""
    return AffineLogits(network, scale, -tau_p * (data.counts / data.counts.sum()).log())


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """RoBal in the variant and with the values asked for; values not given are the authors' for the data set."""
    family = "cifar100" if data.dataset.startswith("cifar100") else "cifar10"
    preset = PRESETS[family, options["variant"]]
    given = {name: options[name] for name in Preset._fields if options.get(name) is not None}
    if "test_scale" not in given and options["evaluate_at"] == "s":
        given["test_scale"] = given.get("s", preset.s)
    p = preset._replace(**given)
    return Method(
        loss=robal_loss(
            class_margins(data.counts, p.m_0, p.tau_m, p.s),
            class_bias(data.counts, p.tau_b),
            s=p.s,
            beta=p.beta,
            kl_scale=options["kl_scale"],
        ),
        head=partial(CosineHead, scale=1.0, gamma=p.gamma_w),
        deploy=partial(boundary_adjustment, scale=p.test_scale, tau_p=p.tau_p),
    )
