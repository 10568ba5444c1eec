"""Square with places drawn on the processor is the official Square, image by image and bit by bit."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn

from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.attacks.square import Square
from ltrobust_bench.attacks.terms import Target


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.01), ("L2", 0.15)])
def test_the_same_images_as_by_the_official_code(norm, epsilon):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)).eval()
    x = 0.2 + 0.6 * torch.rand(24, 1, 8, 8)
    y = model(x).argmax(dim=1)
    attack = Square(name="square", kind="square", restarts=2, queries=60, p_init=0.8)
    stage = attack.stages(Target(model, 10, epsilon, BALLS[norm], 7, "cpu"))["square"]
    official = SquareAttack(
        model, p_init=0.8, n_queries=60, resc_schedule=False, n_restarts=2, norm=norm, eps=epsilon, seed=7, device="cpu"
    )
    with torch.no_grad():
        found, wanted = stage(x, y, 0), official.perturb(x, y)
    assert torch.equal(found, wanted)
    assert 0 < (model(found).argmax(dim=1) != y).sum() < len(y)


def test_places_are_whole_numbers_of_the_processor():
    """A tensor as the bound of a slice would make a GPU's host wait."""
    built = Square.standard().build(Target(nn.Identity(), 10, 0.1, BALLS["Linf"], 0, "cpu"))
    torch.manual_seed(3)
    places = [built.random_int(0, 5) for _ in range(50)]
    torch.manual_seed(3)
    assert places == [int(SquareAttack.random_int(built, 0, 5)) for _ in range(50)]
    assert all(type(place) is int for place in places) and set(places) == set(range(5))
