"""What ``test_ranks.py`` has two processes do: train every method alone and together, and compare.

Started by torchrun with a folder, in which the first rank writes ``found.json``, and names of cases.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.cli.devices import listens
from ltrobust_bench.compute import ranks, winograd
from ltrobust_bench.compute.sharing import shared
from ltrobust_bench.data import loader
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import monitor
from ltrobust_bench.training.build import build_method, deployed
from ltrobust_bench.training.trainer import Session

CPU = torch.device("cpu")
EVERY_OPTION = {
    "reat": [{"tail": "pairwise", "count_at": "after", "attack.bn_mode": "batch"}],
    "dafa": [{"host": "at", "warmup": "0.5"}],
    "cfa": [{"host": "at", "begin": "0", "threshold": "0", "average_decay": "0.5"}],
    "taet": [{"first_harl_epoch": "2", "stage1": "adv"}],
    "cosine": [{"margin": "0.2"}],
    "ikl-at": [{"gamma": "0.4", "radius_ramp": "true", "outer": "bsl"}],
    "mail": [{"host": "at", "first_weighted_epoch": "1"}],
    "faal": [{"form": "batch_sum", "host": "mart"}],
    "hat": [{"robust": "ce"}],
    "lbgat": [{"beta": "0"}],
    "frl": [{"kind": "rwrm", "step": "largest", "base_weights": "counts"}],
}
AROUND = {
    "awp": ("reat", [{}, {"awp.proxy": "main_optimizer"}]),
    "robustlt": ("trades", [{}, {"robustlt.start": "class"}]),
    "ema": ("at", [{}, {"ema.decay": "0.5", "recalibrate_bn": "adversarial"}]),
    "mixup": ("at-bsl", [{}]),
    "cutmix": ("trades", [{"cutmix.probability": "1"}]),
    "cmo": ("reat", [{"cmo.probability": "1"}]),
    "swa": ("reat", [{"swa.rule": "mean", "recalibrate_bn": "clean"}]),
}
REMEMBERING = ("reat", "dafa", "cfa", "taet", "resample", "tailguard", "ikl-at", "mail", "frl")
"""An epoch depends on those before."""
CASES = {slug: {"method": slug, "epochs": 2 if slug in REMEMBERING else 1} for slug in methods.names()}
for slug, found in EVERY_OPTION.items():
    CASES |= {f"{slug} {settings}": {"method": slug, "settings": settings} for settings in found}
for slug, (host, found) in AROUND.items():
    CASES |= {f"{slug} {settings}": {"method": host, "plugins": [slug], "settings": settings} for settings in found}
CASES |= {
    "both plug-ins": {"method": "tde", "plugins": ["awp", "robustlt"]},
    "train mode in crafting": {"method": "trades", "settings": {"attack.bn_mode": "train"}},
    "a recipe's own forwards": {"method": "taet", "track": "paper", "epochs": 2, "settings": {"attack.steps": 2}},
    "the folded copy": {"method": "at", "policy": Policy(crafting="folded", memory_format="channels_last")},
    "Winograd's copy": {"method": "at", "policy": Policy(crafting="winograd")},
    "bf16": {"method": "at", "precision": "bf16"},
    "held-out images": {"method": "at", "holdout": "val", "limit_train": 150, "epochs": 1},
    "a whole run in float64": {"method": "reat", "plugins": ["awp"], "limit_train": None, "epochs": 3},
}
assert set(AROUND) == set(plugins.names())


@contextmanager
def exactly(asked: bool) -> Iterator[None]:
    """Compute in float64, where rounding turns no sign of a gradient."""
    if not asked:
        yield
        return
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(loader, "to_unit", in_float64), patch.object(monitor, "to_unit", in_float64):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def in_float64(images: torch.Tensor) -> torch.Tensor:
    return images.double() / 255


def trained(folder: Path, **request) -> dict:
    """What is left of one or two epochs of one batch each: losses and cost, weights, what memories hold, and logits
    of the deployed model."""
    plan = make_plan(dataset="digits-lt", **{"protocol": "smoke", "model": "small", "limit_train": 40, **request})
    session = Session(plan, folder, CPU, Silent(), None)
    trainee = session.trainee
    if plan.card.base is not None and plan.card.base.role == "teacher":
        torch.manual_seed(1)
        trainee.teacher = shared(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval())
    result = session.run()
    run = plan.run
    _, info = build_method(run.method, run.options, run.train_counts, run.dataset, run.recipe.epochs, CPU)
    deployment = deployed(trainee.method, trainee.network, info)
    with torch.no_grad():
        logits = deployment(session.data.images[:3] / 255)
    memory = {f"{n} {k}": v for n, m in trainee.memories.items() for k, v in m.state_dict().items()}
    if trainee.companion is not None:
        memory |= {f"companion {k}": v for k, v in trainee.companion.state_dict().items()}
    numbers = {k: torch.tensor(v) for row in result.history for k, v in row.items()}
    cost = torch.tensor([result.cost.forwards, result.cost.backwards, result.cost.steps])
    return {**trainee.network.state_dict(), **memory, **numbers, "cost": cost, "logits": logits}


def difference(one: dict, other: dict) -> float:
    """The largest, as a share of the largest value of each tensor."""
    assert one.keys() == other.keys()
    largest = 0.0
    for name, value in one.items():
        gap = (value.double() - other[name].double()).abs().max() if value.numel() else 0.0
        largest = max(largest, float(gap) / max(1.0, float(value.double().abs().max())))
    return largest


def main(folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    winograd.SMALLEST = 16  # the small network's last convolution, too
    alone = {} if listens() else all_trained(folder / "alone", cases)
    with ranks.joined(CPU):
        together = all_trained(folder / "together", cases)
    if not listens():
        found = {name: difference(alone[name], together[name]) for name in cases}
        (folder / "found.json").write_text(json.dumps(found))


def all_trained(folder: Path, cases: list[str]) -> dict[str, dict]:
    left = {}
    for index, name in enumerate(cases):
        with exactly("float64" in name):
            left[name] = trained(folder / str(index), **CASES[name])
    return left


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
