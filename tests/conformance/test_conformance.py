"""Every method in the registry keeps the contract; each check can fail."""

from __future__ import annotations

import textwrap

import pytest
import torch
from same_weights import PLAIN, require_same

from ltrobust_bench import baselines
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.contribute import conformance
from ltrobust_bench.contribute.surroundings import Surroundings
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.registry import Registration
from ltrobust_bench.training.estimate import estimate


@pytest.fixture
def one_thread():
    """Sums are rounded as they were when the weights were kept."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("slug", [*methods.names(), *plugins.names()])
def test_method_conforms(slug, one_thread):
    """And what is trained for that has the weights that it always had, where these were kept."""
    subject = conformance.Subject(slug)
    assert {name: conformance.examine(subject, name) for name in conformance.CHECKS} == dict.fromkeys(
        conformance.CHECKS, []
    )
    if slug in PLAIN:
        require_same(subject.trained, PLAIN[slug])


@pytest.mark.parametrize("slug", methods.names())
def test_what_a_method_costs_can_be_said_beforehand(slug):
    """Nothing is trained for an estimate, not even what the method builds on."""
    plan = make_plan(slug, "digits-lt", protocol="smoke")
    cost = estimate(plan, torch.device("cpu"))
    assert cost.steps == plan.budget and cost.evaluation_images > 0
    assert (cost.training_seconds > 0) == (plan.budget > 0)


CARD = """
slug = "bad-one"
title = "Bad"
summary = "Breaks the contract."
group = "tests"
version = 1
licence_note = "ours"
claims_note = "none"
recipe_source = "none"
[paper]
title = "T"
authors = "A"
venue = "V"
year = 2026
arxiv = "0"
bibtex = "@misc{t, title = {T}}"
[options.strength]
type = "float"
help = "unused"
fixed = 1.0
paper = 1.0
"""

FORGETFUL = """
from ltrobust_bench.api import Method, adversarial
import torch.nn.functional as F

def method(options, data):
    options["strength"]
    calls = []
    def criterion(logits, y):
        calls.append(1)  # a memory outside state_dict
        return F.cross_entropy(logits, y) * len(calls)
    return Method(loss=adversarial(criterion))
"""


FORGETS_THE_EPOCH = """
from ltrobust_bench.api import Method, adversarial
import torch.nn.functional as F

class Seen:
    images = 0

    def on_step_end(self, outputs, y, network):
        self.images += len(y)

    def on_epoch_end(self, epoch, network):
        self.images = 0

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

def method(options, data):
    options["strength"]
    seen = Seen()
    criterion = lambda logits, y: F.cross_entropy(logits, y) * (1 + seen.images / 100)
    return Method(loss=adversarial(criterion), memory={"seen": seen})
"""


def part(*lines):
    """A method with a loss, or more, of its own."""
    body = "".join(f"    {line}\n" for part in lines for line in part.split("\n"))
    deploys = ", deploy=deploy" if "def deploy" in body else ""
    return (
        "import numpy as np\nimport torch\nimport torch.nn.functional as F\n"
        "from ltrobust_bench.api import Method, adversarial\n\n\ndef method(options, data):\n"
        f"    options['strength']\n{body}    return Method(loss=loss{deploys})\n"
    )


SAYS = {
    "options agree with the card: no attack": "card.toml says crafts = true, method.py not",
    "resumed equals uninterrupted: what it saw in this epoch": "in the middle of an epoch gave other weights",
    "keeps to the public interface: a back door": "method.py:5 names _behind",
    "trains two epochs: asks for what the contract does not have": "`ctx` has no 'trainee': a method may ask",
    "trains two epochs: writes into the labels": "wrote into y, which it may only read",
    "trains two epochs: writes into the outputs": "wrote into logits",
    "leaves the rest alone: writes into the labels by a way that torch does not see": "writes into y",
    "leaves the rest alone: a setting": "torch's float32 precision was changed",
    "leaves the rest alone: gradients are switched off": "torch's grad mode was changed",
    "leaves the rest alone: another's function": "ltrobust_bench.longtail.losses.kl_divergence was replaced",
    "leaves the rest alone: an unseeded generator": "training uses the global generator of numpy",
    "leaves the rest alone: images that are not counted": "deploy passes 5 images",
}
"""What is said, where more than one problem could be meant."""

BREAKAGES = {
    "options agree with the card": (
        "from ltrobust_bench.api import Method\ndef method(options, data):\n    return Method()\n"
    ),
    "options agree with the card: no attack": (
        "from ltrobust_bench.api import Method, never\n"
        "def method(options, data):\n    options['strength']\n    return Method(crafts=never)\n"
    ),
    "keeps to the public interface: imports": (
        "from ltrobust_bench.api import Method\nfrom ltrobust_bench.plan.make import make_plan\n"
        "def method(options, data):\n    options['strength']\n    return Method()\n"
    ),
    "resumed equals uninterrupted": FORGETFUL,
    "resumed equals uninterrupted: what it saw in this epoch": FORGETS_THE_EPOCH,
    "same seed, same weights": (
        "import os, torch\nfrom ltrobust_bench.api import Method, adversarial\nimport torch.nn.functional as F\n"
        "def method(options, data):\n    options['strength']\n"
        "    noise = int.from_bytes(os.urandom(4), 'big') / 2**32\n"
        "    return Method(loss=adversarial(lambda z, y: F.cross_entropy(z, y) * (1 + noise)))\n"
    ),
    "deployed model is sane": (
        "import torch\nfrom ltrobust_bench.api import Method\n"
        "class Bad(torch.nn.Module):\n    def __init__(self, n):\n        super().__init__()\n        self.n = n\n"
        "    def forward(self, x):\n        return self.n(x) * float('nan')\n"
        "def method(options, data):\n    options['strength']\n    return Method(deploy=lambda n, d: Bad(n))\n"
    ),
    "keeps to the public interface: a back door": (
        "from ltrobust_bench.api import Method\ndef method(options, data):\n    options['strength']\n"
        "    def loss(outputs, y, ctx):\n        getattr(ctx, '_behind').counter.forwards = 0\n"
        "    return Method(loss=loss)\n"
    ),
    "trains two epochs: asks for what the contract does not have": part(
        "def loss(outputs, y, ctx):", "    return outputs.adversarial.logits.sum() * ctx.trainee.recipe.lr"
    ),
    "trains two epochs: writes into the labels": part(
        "def loss(outputs, y, ctx):", "    return F.cross_entropy(outputs.adversarial.logits, y.zero_())"
    ),
    "trains two epochs: writes into the outputs": part(
        "def loss(outputs, y, ctx):", "    return F.cross_entropy(outputs.adversarial.logits.mul_(2), y)"
    ),
    "leaves the rest alone: writes into the labels by a way that torch does not see": part(
        "def loss(outputs, y, ctx):", "    return F.cross_entropy(outputs.adversarial.logits, y.data.zero_())"
    ),
    "leaves the rest alone: a setting": part(
        "torch.set_float32_matmul_precision('medium')\nloss = adversarial(F.cross_entropy)"
    ),
    "leaves the rest alone: gradients are switched off": part(
        "def loss(outputs, y, ctx):",
        "    value = F.cross_entropy(outputs.adversarial.logits, y)",
        "    torch.set_grad_enabled(False)",
        "    return value",
    ),
    "leaves the rest alone: another's function": part(
        "from ltrobust_bench.longtail import losses",
        "losses.kl_divergence = lambda *_, **__: torch.zeros(1)",
        "loss = adversarial(F.cross_entropy)",
    ),
    "leaves the rest alone: an unseeded generator": part(
        "def loss(outputs, y, ctx):",
        "    np.random.rand()",
        "    return F.cross_entropy(outputs.adversarial.logits, y)",
    ),
    "leaves the rest alone: images that are not counted": part(
        "loss = adversarial(F.cross_entropy)",
        "def deploy(network, data):",
        "    network.eval()(torch.rand(5, 1, 8, 8))",
        "    return network",
    ),
    "trains two epochs: syntax error": "def method(options, data)\n    return None\n",
    "trains two epochs: returns nothing": "def method(options, data):\n    options['strength']\n",
    "trains two epochs: no gradient": (
        "from ltrobust_bench.api import Method, adversarial\n"
        "def method(options, data):\n    options['strength']\n"
        "    return Method(loss=adversarial(lambda z, y: 0 * z.sum()))\n"
    ),
    "trains two epochs": (
        "from ltrobust_bench.api import Method, adversarial\n"
        "def method(options, data):\n    options['strength']\n"
        "    return Method(loss=adversarial(lambda z, y: z.sum() * float('inf')))\n"
    ),
}


@pytest.mark.parametrize("broken", BREAKAGES)
def test_each_breakage_is_found_by_its_check(broken, tmp_path, monkeypatch):
    check = broken.partition(":")[0]
    folder = tmp_path / "bad_one"
    folder.mkdir()
    (folder / "card.toml").write_text(CARD)
    (folder / "method.py").write_text(textwrap.dedent(BREAKAGES[broken]))
    monkeypatch.setattr(baselines, "__path__", [str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, "ltrobust_bench.baselines.bad_one.method", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "ltrobust_bench.baselines.bad_one", raising=False)
    monkeypatch.delattr(baselines, "bad_one", raising=False)
    from ltrobust_bench.cards import MethodEntry, read_card

    entry = MethodEntry(read_card(folder / "card.toml"), "ltrobust_bench.baselines.bad_one.method", "test")
    methods.names()
    monkeypatch.setitem(methods._entries, "bad-one", Registration("bad-one", entry))
    subject = conformance.Subject("bad-one")
    before = Surroundings(without=entry.module)
    found = conformance.examine(subject, check)
    assert found != [] and not any("\n" in line for line in found)
    assert broken not in SAYS or any(SAYS[broken] in line for line in found)
    assert check != "leaves the rest alone" or before.changes() == [], "the next method is examined in the same process"
    if check != "trains two epochs" and "back door" not in broken and "switched off" not in broken:
        assert conformance.examine(subject, "trains two epochs") == []
