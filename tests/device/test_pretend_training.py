"""Every method and plug-in trains on the pretend GPU as on the CPU, and no step makes the device wait."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from pretend import LOG, pretend_cuda

from ltrobust_bench import interrupt
from ltrobust_bench.cards import methods
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import checkpoint, trainer
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import train_plan

TERMS = {"protocol": "smoke", "limit_train": 40, "limit_test": 20, "epochs": 2}
"""Two steps."""


@pytest.fixture
def waits(monkeypatch):
    """What made the device wait within steps."""
    found = Counter()

    def watched(name):
        original = getattr(Step, name)

        def work(self, *args, **kwargs):
            before = Counter(LOG.waits)
            result = original(self, *args, **kwargs)
            found.update(LOG.waits - before)
            return result

        monkeypatch.setattr(Step, name, work)

    watched("craft")
    watched("update")
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where runs are, so that what several of them build on is trained once."""
    return tmp_path_factory.mktemp("runs")


def weights(plan, folder, kind):
    return checkpoint.read_model(train_plan(plan, folder / plan.run.folder_name(), torch.device(kind)).model_path)[0]


def same_on_both(plan, folder):
    """Train on the CPU and on the pretend GPU: the weights are the same."""
    here = weights(plan, folder / "cpu", "cpu")
    with pretend_cuda():
        there = weights(plan, folder / "cuda", "cuda")
    assert all(torch.equal(value, there[name]) for name, value in here.items())
    assert all(value.isfinite().all() for value in here.values())


@pytest.mark.parametrize("slug", methods.names())
def test_a_method(slug, runs, waits, monkeypatch):
    monkeypatch.setattr(trainer, "due", lambda epoch, epochs: False)
    same_on_both(make_plan(slug, "digits-lt", **TERMS), runs)
    assert not waits


VARIANTS = {
    "awp": ("at", {"plugins": ("awp",), "settings": {"awp.warmup": 0.0}}),
    "awp by the main optimiser": (
        "reat",
        {"plugins": ("awp",), "settings": {"awp.warmup": 0.0, "awp.proxy": "main_optimizer"}},
    ),
    "robustlt": ("reat", {"plugins": ("robustlt",)}),
    "awp and robustlt": ("trades", {"plugins": ("awp", "robustlt")}),
    "mixup": ("at-bsl", {"plugins": ("mixup",)}),
    "cutmix": ("reat", {"plugins": ("cutmix", "awp"), "settings": {"cutmix.probability": 1}}),
    "cmo": ("trades", {"plugins": ("cmo",), "settings": {"cmo.probability": 1}}),
    "ema": ("reat", {"plugins": ("ema",), "settings": {"recalibrate_bn": "adversarial"}}),
    "ema by the released code": ("at", {"plugins": ("ema",), "settings": {"ema.buffers": "official", "ema.warmup": 0}}),
    "swa": ("at", {"plugins": ("swa",), "settings": {"recalibrate_bn": "clean", "swa.rule": "mean"}}),
    "bf16": ("at", {"precision": "bf16"}),
    "folded": ("at", {"policy": Policy(crafting="folded", memory_format="channels_last")}),
    "winograd": ("at", {"policy": Policy(crafting="winograd", memory_format="channels_last")}),
    "bf16 folded": ("at", {"precision": "bf16", "policy": Policy(crafting="folded", memory_format="channels_last")}),
    "pairs of the tail": ("reat", {"settings": {"tail": "pairwise", "attack.bn_mode": "batch", "count_at": "after"}}),
    "statistics that move": ("trades", {"settings": {"attack.bn_mode": "train"}}),
    "square roots": ("resample", {"settings": {"kind": "square-root"}}),
    "progressive": ("resample", {"settings": {"kind": "progressive"}}),
    "weights that average": ("cfa", {"settings": {"begin": 0.0, "average_decay": 0.5, "threshold": 0.0}}),
    "hosted": ("dafa", {"settings": {"host": "at"}}),
    "randaugment": ("at", {"settings": {"augment": "randaugment"}}),
    "autoaugment": ("at", {"settings": {"augment": "autoaugment"}}),
    "start none": ("at", {"settings": {"attack.start": "none"}}),
    "start gauss": ("at", {"settings": {"attack.start": "gauss"}}),
    "start one_sided": ("at", {"settings": {"attack.start": "one_sided"}}),
    "adamw": ("at", {"settings": {"optimizer": "adamw"}}),
    "held out": ("at", {"holdout": "val"}),
}
ORDINARY = {"awp and robustlt", "cmo", "ema", "folded"}
"""Of these the quick suite takes so many; ``make test-slow`` all."""


@pytest.mark.parametrize("name", [n if n in ORDINARY else pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS])
def test_a_variant(name, runs, waits):
    slug, more = VARIANTS[name]
    same_on_both(make_plan(slug, "digits-lt", **TERMS, **more), runs)
    # What Winograd's copy is checked by, and a copy in bfloat16 or folded, is looked at now and then.
    assert not [line for line in waits if "stand_in.py" not in line]


@pytest.mark.slow
@pytest.mark.parametrize("slug", methods.names())
def test_a_method_by_its_authors_recipe(slug, runs, waits):
    same_on_both(make_plan(slug, "digits-lt", track="paper", **TERMS), runs)
    assert not waits


class Asked(Silent):
    """Asks the process to stop after a number of steps."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, units=1, detail=None):
        self.left -= units
        if self.left == 0:
            interrupt._asked = "SIGTERM"


@pytest.mark.parametrize(
    ("slug", "kind", "steps"),
    [
        ("reat", "cuda", 1),
        *(
            pytest.param(slug, *how, marks=pytest.mark.slow)
            for slug in ("reat", "dafa", "cfa", "taet")
            for how in (("cuda", 1), ("cuda", 3), ("cpu", 3))
            if (slug, *how) != ("reat", "cuda", 1)
        ),
    ],
)
def test_an_interrupted_training_goes_on_as_in_one_go(slug, kind, steps, tmp_path, monkeypatch):
    """Within an epoch, after one, and begun on the CPU."""
    monkeypatch.setattr(interrupt, "_asked", "")
    plan = make_plan(slug, "digits-lt", **TERMS, settings={"batch_size": 16})
    whole = weights(plan, tmp_path / "whole", "cpu")
    folder = tmp_path / "parts" / plan.run.folder_name()
    with pretend_cuda() if kind == "cuda" else nullcontext(), pytest.raises(interrupt.Stopped, match="is kept"):
        train_plan(plan, folder, torch.device(kind), Asked(steps))
    monkeypatch.setattr(interrupt, "_asked", "")
    kept = list(folder.parent.rglob("checkpoint-*"))
    assert [path.name.count("-") for path in kept] == [2 if steps == 1 else 1]
    with pretend_cuda():
        ended = weights(plan, tmp_path / "parts", "cuda")
    assert all(torch.equal(value, ended[name]) for name, value in whole.items())
