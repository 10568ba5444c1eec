"""Axes of the recipe that any method takes: another activation, label smoothing, a cyclic rate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ltrobust_bench as lt
from ltrobust_bench.api import Method, clean, linear
from ltrobust_bench.cards import card_of
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.stand_in import StandIn
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.registry import Registration, models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.training.build import build_method, build_network
from ltrobust_bench.training.step import Step, Trainee
from ltrobust_bench.verbs import load_model

COUNTS, SHAPE = [40, 20, 10, 5], (1, 8, 8)
X = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 4


def step_of(method, smoothing=0.0, **options):
    """A step of a method on ``X`` with labels ``Y``, and what it minimises, before anything is updated."""
    recipe = card_of("at").resolve_recipe(load_protocol("smoke"), "fixed", 0.1, {"label_smoothing": smoothing})
    if isinstance(method, str):
        method, _ = build_method(method, options, COUNTS, "digits-lt", 10, torch.device("cpu"))
    torch.manual_seed(0)
    network = build_network("small", SHAPE, 4, method)
    optimizer = recipe.optimizer.build(network.parameters(), recipe.lr, recipe.weight_decay)
    step = Step(Trainee(network.train(), method, recipe, optimizer, Counter()), X, Y, epoch=1, epochs=10)
    step.x_adv = (X + 0.05).clamp(0, 1)
    return step, step._loss()


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_is_that_of_cross_entropy(smoothing):
    step, loss = step_of("at", smoothing)
    wanted = F.cross_entropy(step.adversarial.logits, Y, label_smoothing=smoothing)
    torch.testing.assert_close(loss, wanted)
    assert not torch.isclose(loss, step_of("at")[1]), "a mutant without it is told apart"


def test_of_trades_the_cross_entropy_is_smoothed_and_the_divergence_is_not():
    options = {"beta": 6.0, "reduction": "official"}
    step, loss = step_of("trades", 0.2, **options)
    sharp, plain = step_of("trades", **options)
    pair = [F.cross_entropy(step.clean.logits, Y, label_smoothing=s) for s in (0.2, 0.0)]
    torch.testing.assert_close(loss - plain, pair[0] - pair[1])


def test_of_balanced_softmax_the_adjusted_logits_are_smoothed():
    step, loss = step_of("at-bsl", 0.3, tau=1.0, tail="off")
    adjusted = step.adversarial.logits + torch.tensor(COUNTS).log()
    torch.testing.assert_close(loss, F.cross_entropy(adjusted, Y, label_smoothing=0.3))


def test_smoothing_passes_no_image_more_and_not_through_what_the_loss_leaves_out():
    step, _ = step_of(Method(loss=clean(F.cross_entropy)), 0.1)
    assert step.trainee.counter.forwards == len(X) and "adversarial" not in vars(step)


def test_a_batch_of_one_class_stays_one():
    """What a loss computes from which images share a label does not change as labels move."""
    seen = []

    def loss(outputs, y, ctx):
        seen.append((y[:, None] == y[None]).clone())
        return F.cross_entropy(outputs.adversarial.logits, y)

    step_of(Method(loss=loss), 0.1)
    assert len(seen) == 4 and all(same.equal(seen[0]) for same in seen)


@pytest.mark.parametrize("model", ["small", "resnet8", "resnet18", "preact-resnet18", "wrn-28-10"])
def test_every_network_takes_another_activation(model):
    shape, method = (3, 8, 8), Method(head=linear)
    torch.manual_seed(0)
    relu = build_network(model, shape, 4, method)
    torch.manual_seed(0)
    silu = build_network(model, shape, 4, method, "silu").eval()
    kinds = [type(module) for module in silu.modules()]
    assert nn.ReLU not in kinds and nn.SiLU in kinds
    assert relu.state_dict().keys() == silu.state_dict().keys(), "weights of the one fit the other"
    assert all(a.equal(b) for a, b in zip(relu.state_dict().values(), silu.state_dict().values(), strict=True))
    if model in ("small", "resnet8"):
        x = torch.rand(2, *shape)
        torch.testing.assert_close(StandIn(silu, x, "folded")(x), silu(x), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(silu(x), relu.eval()(x))


def test_a_network_without_relu_is_refused(monkeypatch):
    def flat(shape):
        net = nn.Flatten()
        net.features = shape[0] * shape[1] * shape[2]
        return net

    monkeypatch.setitem(models._entries, "flat", Registration("flat", flat))
    build_network("flat", SHAPE, 4, Method())
    with pytest.raises(UsageError, match="model flat has no module nn.ReLU, in whose place activation=silu would be"):
        build_network("flat", SHAPE, 4, Method(), "silu")


def test_a_run_with_all_of_them_is_trained_recorded_and_read_again(tmp_path):
    by_hand = {"activation": "silu", "label_smoothing": 0.1, "lr_schedule": "piecewise"}
    record = lt.run(
        "reat", "digits-lt", protocol="smoke", settings=by_hand, epochs=2, limit_train=64, limit_test=20,
        runs_dir=tmp_path, results_dir=None, device="cpu",
    )  # fmt: skip
    assert record.run.overrides == by_hand and record.status.off_recipe
    (folder,) = tmp_path.glob("reat-*")
    loaded = load_model(folder, device="cpu").model
    assert nn.SiLU in [type(module) for module in loaded.modules()]
    rates = [line.split(",")[1] for line in (folder / "training.csv").read_text().splitlines()[1:]]
    assert float(rates[0]) < record.run.recipe.lr, "the rate rises first"


def test_what_nobody_asks_for_is_in_no_key():
    run = make_plan("at", "digits-lt").run
    assert make_plan("at", "digits-lt", settings={"activation": "relu", "label_smoothing": 0}).run.key() == run.key()
    assert "activation" not in run.model_dump(mode="json", exclude_defaults=True)["recipe"]
    for name, value, says in (("activation", "gelu", "relu"), ("label_smoothing", 1, "less than 1")):
        with pytest.raises(UsageError, match=says):
            make_plan("at", "digits-lt", settings={name: value})


def test_label_smoothing_is_refused_where_targets_are_no_labels():
    """Soft labels cannot be moved on by a number: their mass would grow with it."""

    def soft(x, y, ctx):
        return x, F.one_hot(y, 4).float()

    assert step_of(Method(batch=soft))[1].isfinite()
    with pytest.raises(UsageError, match="label_smoothing moves labels, and this training makes targets"):
        step_of(Method(batch=soft), 0.1)
