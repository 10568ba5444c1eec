"""mixup, CutMix and CMO by hand: boxes, mixtures, who is drawn, and in which epochs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ltrobust_bench.api import Mixed, TrainInfo
from ltrobust_bench.cards import plugins
from ltrobust_bench.longtail import Box, box_around, paste

COUNTS = [1600, 400, 100]
LABELS = np.repeat(np.arange(3), COUNTS)


def build(slug, **options):
    info = TrainInfo(torch.tensor(COUNTS, dtype=torch.float64), "cifar10-lt", 200)
    return plugins.get(slug).factory()(plugins.get(slug).card.resolve_options("fixed", options), info)


def images(seed):
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = images(1), torch.tensor([0, 1, 2, 0, 1, 2])
FOREGROUND, THEIRS = images(2), torch.tensor([2, 2, 1, 0, 2, 1])
NOW = SimpleNamespace(epoch=100, epochs=200, partners=(FOREGROUND, THEIRS))


@pytest.mark.proves("cutmix", "cmo")
@pytest.mark.parametrize(
    ("centre", "share", "expected"),
    [
        ((4, 4), 0.75, Box(2, 6, 2, 6)),  # half of each side
        ((1, 7), 0.75, Box(0, 3, 5, 8)),  # cut off at the border
        ((4, 4), 1.0, Box(4, 4, 4, 4)),  # nothing
        ((0, 0), 0.0, Box(0, 4, 0, 4)),  # a quarter is left of everything
        ((4, 4), 0.5, Box(2, 6, 2, 6)),  # 8 * 0.707 = 5.66, cut to 5, and its half to 2
    ],
)
def test_box(centre, share, expected):
    assert box_around(*centre, 8, 8, share) == expected


@pytest.mark.proves("cutmix", "cmo")
def test_paste_and_the_share_by_area():
    mixed, share = paste(X, FOREGROUND, Box(0, 3, 5, 8))
    for row in range(8):
        for column in range(8):
            source = FOREGROUND if row < 3 and column >= 5 else X
            assert torch.equal(mixed[..., row, column], source[..., row, column])
    assert share == 1 - 9 / 64


def mixed_of(plugin, ctx=NOW, tries=40):
    """A mixture that a plug-in makes, once it makes one."""
    torch.manual_seed(0)
    for _ in range(tries):
        x, targets = plugin.batch(X, Y, ctx)
        if isinstance(targets, Mixed) and 0.2 < targets.share < 0.8:
            return x, targets
    raise AssertionError("it mixes nothing")


def mixup_is_a_mixture(plugin):
    x, targets = mixed_of(plugin)
    torch.manual_seed(0)
    assert torch.equal(targets.labels, Y)
    order = next(o for o in permutations() if torch.allclose(x, targets.share * X + (1 - targets.share) * X[o]))
    assert torch.equal(targets.partners, Y[order])
    assert not torch.equal(order, torch.arange(6))


def permutations():
    from itertools import permutations as every

    yield from map(torch.tensor, every(range(6)))
    raise AssertionError("no permutation of the batch makes these images")


def cut_from(partners, labels):
    def check(plugin):
        x, targets = mixed_of(plugin)
        pasted = (x != X).any(dim=1)
        rows, columns = (pasted[0].any(dim=d).nonzero().flatten() for d in (1, 0))
        box = Box(int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)
        for order in [torch.arange(6)] if labels is not Y else permutations():
            if torch.equal(x, paste(X, partners[order], box)[0]):
                break
        else:
            raise AssertionError("the box is of other images")
        assert torch.equal(targets.labels, Y) and torch.equal(targets.partners, labels[order])
        assert targets.share == 1 - pasted[0].sum().item() / 64

    return check


def draws_equally(plugin):
    order = plugin.order(np.arange(2100), LABELS, 1, np.random.default_rng(0))
    assert np.array_equal(order[0], np.arange(2100)), "the host's images stay"
    partners = np.bincount(LABELS[order[1]], minlength=3) / 2100
    assert np.abs(partners - 1 / 3).max() < 0.04


def draws_inversely(plugin):
    order = plugin.order(np.arange(2100), LABELS, 1, np.random.default_rng(0))
    wanted = np.array([1 / n for n in COUNTS]) / sum(1 / n for n in COUNTS)
    assert np.abs(np.bincount(LABELS[order[1]], minlength=3) / 2100 - wanted).max() < 0.04


def mixes_from_epoch_5_to_197(plugin):
    """The released condition, for 200 epochs: 3 < e < 197, from 0."""
    active = []
    for epoch in range(1, 201):
        ctx = SimpleNamespace(epoch=epoch, epochs=200, partners=NOW.partners)
        if any(isinstance(plugin.batch(X, Y, ctx)[1], Mixed) for _ in range(30)):
            active.append(epoch)
    assert active == list(range(5, 198))


def half_of_all(plugin):
    torch.manual_seed(0)
    made = [isinstance(plugin.batch(X, Y, NOW)[1], Mixed) for _ in range(400)]
    assert 0.42 < sum(made) / 400 < 0.58


def labels_alone(plugin):
    """Images are mixed, labels are not."""
    return SimpleNamespace(batch=lambda x, y, ctx: (plugin.batch(x, y, ctx)[0], y))


def shares_swapped(plugin):
    def batch(x, y, ctx):
        mixed, targets = plugin.batch(x, y, ctx)
        return mixed, targets._replace(share=1 - targets.share) if isinstance(targets, Mixed) else targets

    return SimpleNamespace(batch=batch)


CHECKS = [
    ("mixup", {}, mixup_is_a_mixture, {"labels are not mixed": labels_alone, "shares are swapped": shares_swapped}),
    ("cutmix", {}, cut_from(X, Y), {"labels are not mixed": labels_alone, "shares are swapped": shares_swapped}),
    ("cutmix", {}, half_of_all, {"always": {"probability": 1.0}}),
    (
        "cmo",
        {},
        cut_from(FOREGROUND, THEIRS),
        {"labels are not mixed": labels_alone, "shares are swapped": shares_swapped},
    ),
    ("cmo", {}, half_of_all, {"always": {"probability": 1.0}}),
    ("cmo", {}, draws_equally, {"images as they are": {"exponent": 0.0}, "classes by 1/n": {"drawn": "classes"}}),
    ("cmo", {"drawn": "classes"}, draws_inversely, {"classes equally": {"drawn": "images"}}),
    (
        "cmo",
        {"probability": 1.0},
        mixes_from_epoch_5_to_197,
        {"from the start": {"begin": 0.0}, "to the end": {"end": 1.0}},
    ),
]
NAMES = [f"{slug} {check.__name__}" for slug, _, check, _ in CHECKS]


@pytest.mark.proves
@pytest.mark.parametrize(("slug", "options", "check"), [c[:3] for c in CHECKS], ids=NAMES)
def test_mixture(slug, options, check):
    check(build(slug, **options))


MUTANTS = [(slug, o, check, name, change) for slug, o, check, mutants in CHECKS for name, change in mutants.items()]


@pytest.mark.mutant
@pytest.mark.parametrize(
    ("slug", "options", "check", "mutant", "change"), MUTANTS, ids=[f"{m[0]} {m[3]}" for m in MUTANTS]
)
def test_mixture_mutant_is_caught(slug, options, check, mutant, change):
    made = build(slug, **{**options, **change}) if isinstance(change, dict) else change(build(slug, **options))
    with pytest.raises(AssertionError):
        check(made)
