"""What stands before the attack: partners, other images, targets that are no plain labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ltrobust_bench.api import Method, Mixed, Plugin, shuffle
from ltrobust_bench.data.loader import Batch, DeviceData, TrainLoader, to_unit
from ltrobust_bench.errors import ContractError, LTBenchError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training.build import sampler_of
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import Session, train_plan

CPU = torch.device("cpu")
CLASSES = 10
TERMS = {"protocol": "smoke", "limit_train": 60, "epochs": 2}


def session(tmp_path, method=None, plugged=()):
    found = Session(make_plan("at", "digits-lt", **TERMS), tmp_path, CPU, Silent(), None)
    if method is not None:
        found.trainee.method = method
    found.trainee.plugins = tuple(plugged)
    return found


def step_of(tmp_path, method=None, plugged=()):
    one = session(tmp_path, method, plugged)
    return Step(one.trainee, *next(one.loader.epoch(1)), epoch=1, epochs=2)


class Mixes(Plugin):
    """Mixes each image with the one opposite."""

    def __init__(self, share=0.25):
        self.share = share

    def batch(self, x, y, ctx):
        return self.share * x + (1 - self.share) * x.flip(0), Mixed(y, y.flip(0), self.share)


def soft(x, y, ctx):
    """The same as :class:`Mixes` by a method's own part, with soft labels."""
    both = (F.one_hot(labels, CLASSES).to(x.dtype) for labels in (y, y.flip(0)))
    return 0.25 * x + 0.75 * x.flip(0), sum(s * one for s, one in zip((0.25, 0.75), both, strict=True))


def weights_after(step):
    step.craft(generator=torch.Generator().manual_seed(0))
    loss = step.update()
    return loss, step.x_adv, torch.cat([p.flatten() for p in step.trainee.network.parameters()])


def test_mixed_labels_are_soft_labels_in_attack_and_loss(tmp_path):
    """Cross-entropy is linear in its targets, so both ways are one."""
    mixed, own = (weights_after(step_of(tmp_path, *how)) for how in ((None, [Mixes()]), (Method(batch=soft), ())))
    for one, other in zip(mixed, own, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    plain = weights_after(step_of(tmp_path))
    assert not torch.allclose(plain[0], mixed[0], atol=1e-3)


def test_a_share_of_one_is_no_mixing(tmp_path):
    mixed, plain = weights_after(step_of(tmp_path, None, [Mixes(1.0)])), weights_after(step_of(tmp_path))
    assert all(torch.equal(one, other) for one, other in zip(mixed, plain, strict=True))


def test_labels_in_the_attacks_budget_and_in_memories_are_those_drawn(tmp_path):
    seen = []

    class Looks(Plugin):
        def attack_budget(self, budget, y, ctx):
            seen.append(y)
            return budget

        def on_step_end(self, outputs, y, network):
            seen.append(y)

    step = step_of(tmp_path, None, [Mixes(), Looks()])
    step.craft()
    step.update()
    assert len(seen) == 2 and all(y is step.y for y in seen) and isinstance(step.targets, Mixed)


def test_a_proxys_loss_is_that_of_the_same_mixture(tmp_path):
    found = []

    class Asks(Plugin):
        def before_loss(self, step):
            found.append(step.fresh_loss().detach())

    step = step_of(tmp_path, None, [Mixes(), Asks()])
    step.craft()
    loss = step.update()
    assert torch.allclose(found[0], loss) and len(found) == 1


def test_two_parts_that_mix_are_refused(tmp_path):
    with pytest.raises(UsageError, match="two parts of this training make targets of their own"):
        step_of(tmp_path, None, [Mixes(), Mixes()])
    with pytest.raises(UsageError, match="mixup cannot be combined with cutmix"):
        make_plan("at", "digits-lt", plugins=["mixup", "cutmix"])


def test_writing_into_the_drawn_images_is_refused(tmp_path):
    class Writes(Plugin):
        def batch(self, x, y, ctx):
            return x.clamp_(0.1, 0.9), y

    with pytest.raises(ContractError, match="wrote into x, which it may only read"):
        weights_after(step_of(tmp_path, None, [Writes()]))


# Partners


class Pairs(Plugin):
    """Partners are the images in another order."""

    def order(self, order, labels, epoch, generator):
        return np.stack([order, order[::-1]])


def loader(sampler, augment="none", padding=1):
    images = torch.arange(40 * 64, dtype=torch.int64).remainder(251).to(torch.uint8).view(40, 1, 8, 8)
    data = DeviceData(images, torch.arange(40) % CLASSES)
    terms = {"batch_size": 16, "steps": 2, "seed": 3, "padding": padding, "flip": True}
    return data, TrainLoader(data, sampler, augment=augment, **terms)


def test_partners_come_beside_the_same_batches_as_without_them():
    _, alone = loader(shuffle)
    data, pairs = loader(sampler_of(Method(), [Pairs()]))
    order = pairs.order(1)
    for number, (plain, batch) in enumerate(zip(alone.epoch(1), pairs.epoch(1), strict=True)):
        assert plain.partners is None and torch.equal(plain.x, batch.x) and torch.equal(plain.y, batch.y)
        x, y = batch.partners
        assert torch.equal(y, data.labels[order[1, number * 16 : (number + 1) * 16]]) and x.shape == batch.x.shape
    (first, second), (again,) = pairs.epoch(1, order), pairs.epoch(1, order, first=1)
    assert torch.equal(second.partners[0], again.partners[0]) and not torch.equal(first.x, second.x)


def test_partners_are_augmented_by_draws_of_their_own():
    data, pairs = loader(lambda *_: np.tile(np.arange(32), (2, 1)))
    (batch, _) = pairs.epoch(1)
    assert torch.equal(batch.y, batch.partners[1]) and not torch.equal(batch.x, batch.partners[0])
    data, pairs = loader(lambda *_: np.tile(np.arange(32), (2, 1)), padding=0)
    (batch, _) = pairs.epoch(1)
    mirrored = [
        bool(torch.equal(x, to_unit(image).flip(-1))) for x, image in zip(batch.partners[0], data.images, strict=False)
    ]
    assert 0 < sum(mirrored) < 16


@pytest.mark.parametrize("order", [np.zeros((3, 8), dtype=np.int64), np.zeros((2, 2, 2), dtype=np.int64)])
def test_another_shape_of_an_order_is_one_line(order):
    with pytest.raises(
        ContractError, match=r"a sampler gave indices of shape \(.*\); it gives \[n\], or \[2, n\] for pairs"
    ):
        sampler_of(replace(Method(), sampler=lambda *_: order), ())(np.zeros(8), 8, 1, np.random.default_rng(0))


def test_a_batch_without_partners_has_none():
    assert Batch(torch.zeros(1), torch.zeros(1)).partners is None


def test_images_of_a_failing_step_are_named_in_pairs_too(tmp_path):
    plan = make_plan("at", "digits-lt", plugins=["cmo"], **{**TERMS, "settings": {"lr": 1e30, "batch_size": 8}})
    with pytest.raises(LTBenchError, match="Training images of that step: ") as caught:
        train_plan(plan, tmp_path, CPU)
    assert len(str(caught.value).rpartition("that step: ")[2].split(",")) == 2 * 8
