"""A record as RobustBench's model_info JSON. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltrobust_bench.attacks.ball import ThreatModel
from ltrobust_bench.cards import methods
from ltrobust_bench.errors import RecordError
from ltrobust_bench.records.schema import Record

THEIRS = {"cifar10-lt": "cifar10", "cifar10-lt-perm": "cifar10", "cifar100-lt": "cifar100"}
ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "preact-resnet18": "PreActResNet-18",
    "wrn-28-10": "WideResNet-28-10",
    "wrn-34-10": "WideResNet-34-10",
}
RADII: dict[ThreatModel, tuple[float, str]] = {"Linf": (8 / 255, "8/255"), "L2": (0.5, "0.5")}
"""RobustBench's radii, and how it writes them."""


def model_info(record: Record) -> dict[str, Any]:
    """The fields that RobustBench keeps of a model, with its types: accuracies are per cent with two decimals, as text.

    Raises:
        RecordError: if the method has no card, or AutoAttack standard was not run.
    """
    run = record.run
    if run.method not in methods.names():
        raise RecordError(f"the record's method {run.method} has no card here; a paper and its authors are needed.")
    if "autoattack" not in record.attacks:
        raise RecordError("the record has no AutoAttack standard, which RobustBench reports.")
    paper = methods.get(run.method).card.paper
    tail = f"imbalance ratio {run.ratio}" if run.imbalance_ratio > 1 else "balanced"
    return {
        "link": f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else paper.url,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": THEIRS.get(run.dataset, run.dataset),
        "venue": f"{paper.venue} {paper.year}",
        "architecture": ARCHITECTURES.get(run.model, run.model),
        "eps": _radius(run.threat_model, run.epsilon),
        "clean_acc": _percent(record, "clean"),
        "reported": None,
        "autoattack_acc": _percent(record, "autoattack"),
        "footnote": f"Trained on long-tailed {run.dataset} ({tail}, {sum(run.train_counts)} images) by ltrobust-bench: "
        f"{run.combination}, protocol {run.protocol}, track {run.track}, seed {run.seed}, record {record.id}.",
    }


def obstacles(record: Record) -> list[str]:
    """Why RobustBench would not list the record's model."""
    run, found = record.run, []
    if run.dataset not in THEIRS:
        found.append(f"RobustBench has no data set {run.dataset}")
    elif sum(run.test_counts) != 10_000:
        found.append(f"RobustBench evaluates on 10,000 test images, not on {sum(run.test_counts)}")
    radius, written = RADII[run.threat_model]
    if not np.isclose(run.epsilon, radius):
        found.append(f"RobustBench's {run.threat_model} radius is {written}, not {run.epsilon:.4g}")
    return found


def _radius(threat_model: ThreatModel, epsilon: float) -> str:
    """A radius as RobustBench writes it: of Linf as a fraction of 255, of L2 as it is."""
    return f"{round(epsilon * 255, 4):g}/255" if threat_model == "Linf" else f"{epsilon:.4g}"


def _percent(record: Record, attack: str) -> str:
    return f"{100 * record.bits(attack).mean():.2f}"
