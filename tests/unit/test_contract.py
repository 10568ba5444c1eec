"""What a method sees is the contract and no more, and whatever it computes is counted."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ltrobust_bench.api import Method, Plugin, TrainInfo
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.compute import forwards
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.errors import ContractError, LTBenchError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import trainer
from ltrobust_bench.training.build import build_plugins, sampler_of
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import Session, train_plan

CPU = torch.device("cpu")
SMALL = {"protocol": "smoke", "epochs": 2, "limit_train": 60}
BATCH = make_plan("at", "digits-lt", **SMALL).train_size
"""All training images: an epoch is one step."""


class Seen:
    """Images that really passed through the backbones of all networks of a training."""

    def __init__(self, monkeypatch):
        self.forwards, self.backwards = 0, 0
        for name in ("network_of", "companion_of", "load_deployed"):
            monkeypatch.setattr(trainer, name, self.watching(getattr(trainer, name)))
        monkeypatch.setattr(trainer, "monitor", lambda *_: {"train_clean": 0.0, "train_robust": 0.0})

    def watching(self, build):
        def built(*arguments):
            network = build(*arguments)
            if network is not None:
                network.backbone.register_forward_hook(self.passed)
            return network

        return built

    def passed(self, module, given, output):
        self.forwards += len(output)
        if output.requires_grad:
            output.register_hook(self.back)

    def back(self, gradient):
        self.backwards += len(gradient)


CASES = [
    *[(slug, [], {}) for slug in methods.names()],
    *[("trades", [slug], {}) for slug in plugins.names()],
    ("robal", [], {"track": "paper"}),
    ("reat", ["robustlt", "awp"], {"track": "paper"}),
]


@pytest.mark.parametrize(("slug", "plugged", "terms"), CASES, ids=lambda v: str(v)[:30])
def test_what_is_counted_is_what_the_backbones_did(slug, plugged, terms, tmp_path, monkeypatch):
    plan = make_plan(slug, "digits-lt", plugins=plugged, **SMALL, **terms)
    before = 0  # backwards of the base, which is trained first
    if plan.base:
        before = train_plan(plan.base, tmp_path / plan.base.run.folder_name(), CPU).cost.backwards
    seen = Seen(monkeypatch)
    result = train_plan(plan, tmp_path / plan.run.folder_name(), CPU)
    assert result.forwards_here == seen.forwards
    if slug not in ("crt", "lws", "rw-fine"):  # there the loss's gradient ends in the head
        assert result.cost.backwards - before == seen.backwards


def played(monkeypatch, tmp_path, plugged=(), policy=None, **parts):
    """Images counted and images seen in an epoch of a method with these parts."""
    seen, build = Seen(monkeypatch), trainer.build_method

    def changed(*arguments):
        method, info = build(*arguments)
        return replace(method, **parts), info

    monkeypatch.setattr(trainer, "build_method", changed)
    monkeypatch.setattr(trainer, "build_plugins", lambda *_: plugged)
    plan = make_plan("at", "digits-lt", policy=policy or Policy(), **SMALL)
    result = train_plan(plan, tmp_path / plan.run.folder_name(), CPU)
    return (result.cost.forwards, result.cost.backwards), (seen.forwards, seen.backwards)


class Remembers:
    """Passes images through the network, and a copy of it, at the end of an epoch, and in a loss."""

    def __init__(self):
        self.network, self.copy = None, None

    def on_step_end(self, outputs, y, network):
        pass

    def on_epoch_end(self, epoch, network):
        self.network, self.copy = network, copy.deepcopy(network)
        network.outputs(torch.rand(7, 1, 8, 8))

    def loss(self, outputs, y, ctx):
        value = F.cross_entropy(outputs.adversarial.logits, y)
        if self.network is not None:
            self.copy(torch.rand(5, 1, 8, 8))
            value = value + self.network.backbone(torch.rand(3, 1, 8, 8)).square().mean()
        return value

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Looks(Plugin):
    def before_loss(self, step):
        step.network(step.x).sum().backward()


@pytest.mark.parametrize("policy", [Policy(), Policy(crafting="folded")], ids=["network", "folded"])
def test_a_network_in_other_hands_counts_too(policy, monkeypatch, tmp_path):
    memory = Remembers()
    plain, _ = played(monkeypatch, tmp_path / "plain", policy=policy)
    counted, _ = played(monkeypatch, tmp_path / "more", (Looks(),), policy, loss=memory.loss, memory={"m": memory})
    # Two epochs of one step: the plug-in looks in both, the memory at the end of both, the loss in the second.
    assert counted[0] - plain[0] == 2 * BATCH + 2 * 7 + (5 + 3)
    assert counted[1] - plain[1] == 2 * BATCH + 3


def test_a_loss_on_features_alone_counts_its_backward(monkeypatch, tmp_path):
    counted, seen = played(monkeypatch, tmp_path, loss=lambda outputs, y, ctx: outputs.clean.features.square().mean())
    assert counted == seen and counted[1] > 0


def test_an_attack_that_begins_again_is_counted_once(monkeypatch, tmp_path):
    calls = []

    class Tight(Splitting):
        def forward(self, x):
            if self.parts == 1 and len(calls) % 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    def objective(logits, y, ctx):
        calls.append(len(logits))
        return F.cross_entropy(logits, y, reduction="none")

    def asks_too(logits, y, ctx):
        ctx.natural_logits()
        return objective(logits, y, ctx)

    for name, climbed in (("alone", objective), ("asks", asks_too)):
        plain, _ = played(monkeypatch, tmp_path / f"plain {name}", objective=climbed)
        whole = len(calls)
        with monkeypatch.context() as patch:
            patch.setattr(forwards, "Splitting", Tight)
            split, _ = played(monkeypatch, tmp_path / f"split {name}", objective=climbed)
        assert split == plain and set(calls) == {BATCH}
        assert len(calls) > 2 * whole, "the attack began again"
        calls.clear()


def test_a_teacher_is_asked_about_the_clean_batch_by_an_objective_and_about_the_crafted_one_by_a_loss(
    tmp_path, monkeypatch
):
    """Once each, also where the attack begins again."""
    counted = []
    for fits in (True, False):
        asked, calls = [], []

        class Tight(Splitting):
            def forward(self, x, fits=fits, calls=calls):
                if self.parts == 1 and len(calls) == 1 and not fits:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return super().forward(x)

        def teacher(images, asked=asked):
            asked.append(images)
            return images.flatten(1)[:, :10]

        def objective(logits, y, ctx, calls=calls):
            calls.append(len(logits))
            return F.cross_entropy(logits + ctx.teacher_logits(), y, reduction="none")

        def loss(outputs, y, ctx):
            return F.cross_entropy(outputs.adversarial.logits + ctx.teacher_logits(), y)

        monkeypatch.setattr(forwards, "Splitting", Tight)
        session = Session(make_plan("at", "digits-lt", **SMALL), tmp_path, CPU, Silent(), None)
        session.trainee.teacher = teacher
        session.trainee.method = Method(objective=objective, loss=loss)
        step = Step(session.trainee, *next(session.loader.epoch(1)), epoch=1, epochs=2)
        step.craft()
        assert all(images is step.x for images in asked) and len(asked) == 1 + (not fits)
        step.update()
        assert asked[-1] is step.x_adv and not torch.equal(step.x, step.x_adv) and len(asked) == 2 + (not fits)
        counted.append((session.trainee.counter.forwards, session.trainee.counter.backwards))
    assert counted[0] == counted[1]


def views():
    """A step as a loss, a context and a plug-in see it."""
    caught = []

    class Catches(Plugin):
        def before_loss(self, step):
            caught.append(step)

    def loss(outputs, y, ctx):
        caught.extend([outputs, ctx])
        return F.cross_entropy(outputs.adversarial.logits, y)

    return caught, Method(loss=loss), Catches()


def test_views_give_what_the_contract_names_and_nothing_else(tmp_path):
    caught, method, plugin = views()
    session = Session(make_plan("at", "digits-lt", **SMALL), tmp_path, CPU, Silent(), None)
    session.trainee.method, session.trainee.plugins = method, (plugin,)
    x, y, _ = next(session.loader.epoch(1))
    Step(session.trainee, x, y, epoch=1, epochs=2).update()
    step, outputs, ctx = caught
    public = [sorted(n for n in dir(view) if not n.startswith("_") and n != "what") for view in (outputs, ctx, step)]
    asked = ["epoch", "epochs", "natural_logits", "partners", "teacher_logits"]
    assert public[:2] == [["adversarial", "after_update", "clean", "companion", "of", "x", "x_adv"], asked]
    assert public[2] == sorted([*asked, "x", "y", "network", "optimizer", "fresh_loss"])
    for view, name in ((outputs, "y"), (ctx, "trainee"), (ctx, "network"), (step, "trainee"), (step, "craft")):
        assert not hasattr(view, name)
        with pytest.raises(ContractError, match=f"has no '{name}': a method may ask it for") as error:
            getattr(view, name)
        assert isinstance(error.value, LTBenchError), "said in one line"
    with pytest.raises(ContractError, match="'x' of `step` cannot be set"):
        step.x = 1 - step.x
    with pytest.raises(UsageError, match="`ctx` has no partners: they are there where a sampler draws pairs"):
        _ = ctx.partners
    assert not hasattr(ctx, "__dict__")


def test_further_views_are_forwards_in_their_mode_and_counted(monkeypatch, tmp_path):
    found = []

    def loss(outputs, y, ctx):
        again = outputs.of(outputs.x)
        looked = [outputs.of(outputs.x_adv, mode) for mode in ("eval", "batch")]
        found.append((outputs, outputs.clean.logits.equal(again.logits), [one.logits for one in looked]))
        return F.cross_entropy(outputs.of(0.5 * outputs.x + 0.5 * outputs.x_adv).logits, y)

    counted, seen = played(monkeypatch, tmp_path, loss=loss)
    assert counted == seen
    # Two attack steps, clean, again, two modes, and the one with a gradient, in two epochs of one step.
    assert counted == (2 * BATCH * (2 + 5), 2 * BATCH * (2 + 1))
    _, equal, (evaluated, of_batch) = found[0]
    assert equal and not torch.allclose(evaluated, of_batch, atol=1e-3)


@pytest.mark.parametrize(("mode", "moves"), [("train", 1), ("eval", 0), ("batch", 0)])
def test_statistics_move_in_train_mode_alone(mode, moves, tmp_path):
    session = Session(make_plan("at", "digits-lt", **SMALL), tmp_path, CPU, Silent(), None)
    step = Step(session.trainee, *next(session.loader.epoch(1)), epoch=1, epochs=2)
    session.trainee.network.train()
    step.of(step.x, mode).logits.sum().backward()
    norm = session.trainee.network.backbone.norms[0]
    assert norm.num_batches_tracked == moves and norm.training and norm.weight.grad is not None


@pytest.mark.parametrize("name", ["x", "x_adv"])
def test_images_are_only_read(name, tmp_path, monkeypatch):
    def loss(outputs, y, ctx):
        getattr(outputs, name).clamp_(0.1, 0.9)
        return F.cross_entropy(outputs.adversarial.logits, y)

    with pytest.raises(ContractError, match=f"wrote into {name}, which it may only read"):
        played(monkeypatch, tmp_path, loss=loss)


def test_natural_logits_are_those_of_the_images_that_are_trained_on(tmp_path):
    """A batch rule may look at the network's logits; the attack is then given those of what the rule made."""
    session, asked = Session(make_plan("at", "digits-lt", **SMALL), tmp_path, CPU, Silent(), None), []

    def batch(x, y, ctx):
        asked.append(ctx.natural_logits())
        return 1 - x, y

    def objective(logits, y, ctx):
        asked.append(ctx.natural_logits())
        return F.cross_entropy(logits, y, reduction="none")

    session.trainee.method = Method(batch=batch, objective=objective)
    step = Step(session.trainee, *next(session.loader.epoch(1)), epoch=1, epochs=2)
    step.craft()
    with torch.no_grad():
        assert torch.equal(asked[1], session.trainee.network.eval()(step.x))
    assert not torch.equal(asked[0], asked[1]) and asked[1] is asked[-1]


def test_pairs_are_drawn_by_one_part(tmp_path):
    method = Method(sampler=lambda labels, draws, epoch, generator: np.stack([np.arange(len(labels))] * 2))
    labels, generator = np.arange(10), np.random.default_rng(0)
    info = TrainInfo(torch.ones(10, dtype=torch.float64), "digits-lt", 2)
    around = {slug: build_plugins([slug], options_of(slug), info) for slug in ("cmo", "mixup")}
    assert sampler_of(method, around["mixup"])(labels, 10, 1, generator).shape == (2, 10)
    with pytest.raises(UsageError, match="MinorityOversampling draws images .* pairs are drawn already"):
        sampler_of(method, around["cmo"])(labels, 10, 1, generator)


def options_of(slug):
    return {f"{slug}.{name}": value for name, value in plugins.get(slug).card.resolve_options("fixed", {}).items()}
