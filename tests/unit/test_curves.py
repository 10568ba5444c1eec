"""Curves: each point is the attack it says, radius 0 is clean, and the files hold what was measured."""

from __future__ import annotations

import csv
import io

import pytest
import torch
from torch import nn

from ltrobust_bench import verbs
from ltrobust_bench.errors import UnknownNameError
from ltrobust_bench.evaluation.curves import RADII, STEPS, attack_at
from ltrobust_bench.report.figures import curve_figure, save


class Threshold(nn.Module):
    """Class 0 or 1 by the mean of the image, with an exact radius: |mean - 1/2|; the other classes never win."""

    def forward(self, x):
        score = x.flatten(1).mean(dim=1) - 0.5
        rest = torch.full((len(x), 8), -10.0)
        return torch.cat([-score[:, None], score[:, None], rest], dim=1)


@pytest.fixture(scope="module")
def by_radius():
    return verbs.curve(Threshold(), "eps", "digits-lt", limit_test=100)


def test_accuracy_falls_with_the_radius_from_the_clean_one(by_radius):
    clean = verbs.evaluate(Threshold(), "digits-lt", attacks=["fgsm"], limit_test=100).metrics("clean")
    values = [float(p.balanced) for p in by_radius.points]
    assert by_radius.x == tuple(f * 0.15 for f in RADII) and by_radius.images == 100
    assert values[0] == clean.balanced
    assert values == sorted(values, reverse=True) and values[-1] == 0


def test_a_point_is_the_attack_it_says(by_radius):
    at_protocol = verbs.evaluate(Threshold(), "digits-lt", attacks=["pgd-20"], limit_test=100)
    assert float(by_radius.points[RADII.index(1.0)].balanced) == at_protocol.metrics("pgd-20").balanced
    for steps in STEPS:
        attack = attack_at("steps", steps)
        reach = steps * {"epsilon": 1, "epsilon/2": 1 / 2, "epsilon/4": 1 / 4}[attack.step_size]
        assert attack.steps == steps and (reach >= 2 or steps == 1), "any point of the ball can be reached"


def test_csv_and_figures(by_radius, tmp_path):
    rows = list(csv.DictReader(io.StringIO(by_radius.csv())))
    assert [float(r["epsilon"]) for r in rows] == pytest.approx(by_radius.x)
    assert float(rows[0]["balanced"]) == pytest.approx(100 * float(by_radius.points[0].balanced), abs=0.01)
    by_steps = verbs.curve(Threshold(), "steps", "digits-lt", limit_test=20)
    assert by_steps.x == STEPS
    for drawn in (by_radius, by_steps):
        assert len(save(curve_figure(drawn), tmp_path / drawn.kind)) == 3
    with pytest.raises(UnknownNameError, match="did you mean 'steps'"):
        verbs.curve(Threshold(), "step", "digits-lt")
