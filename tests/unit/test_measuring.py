"""The measuring programs: the plain loop computes what this package does, and each one runs and writes its table."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    """A module of benchmarks/, as it is imported when one is run from there."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("measure", "reference", "train", "evaluate", "equivalence", "search")
    yield lambda name: __import__(name)
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("slug", ["at", "reat"])
def test_the_plain_loop_and_ours_take_the_same_steps(program, slug):
    """Three steps from the same weights: the double loop's tail term, the attack's weights and the update agree."""
    steps = program("train").steps_of(slug, "small", torch.device("cpu"), 64, 2, ["default", "folded"])
    reference, *ours = ([step() for _ in range(3)] for step in steps.values())
    assert len(set(reference)) == 3
    for losses in ours:
        assert losses == pytest.approx(reference, rel=2e-4)


def test_the_tail_term_of_the_plain_loop_is_in_the_loss(program):
    reference, counts = program("reference"), torch.tensor([100.0, 50.0, 20.0, 5.0])
    loop = reference.Reat(torch.nn.Identity(), None, counts, epsilon=0.1, step_size=0.1, steps=1)
    features = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert loop.tail(features, torch.tensor([0, 1, 2, 3, 3, 0])) != 0
    assert loop.tail(features, torch.tensor([0, 1, 2, 2, 1, 0])) == 0


def test_variants_are_timed_by_turns(program):
    order = []
    measure = program("measure")
    seconds = measure.alternately({n: lambda n=n: order.append(n) for n in "ab"}, repeats=2)
    assert order == list("ababab") and set(seconds) == {"a", "b"}


def test_a_table_names_the_device_that_was_used(program, monkeypatch, capsys):
    """Not the GPU that stands idle beside it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    program("measure").report("title", [{"a": 1}], None, torch.device("cpu"))
    assert "(CPU), " in capsys.readouterr().out


def test_train(program, tmp_path):
    arguments = ["--model", "small", "--batch", "8", "--attack-steps", "1", "--repeats", "1", "--method", "at"]
    done = CliRunner().invoke(program("train").main, [*arguments, "--output", str(tmp_path / "t.csv")])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [row["variant"] for row in rows] == ["reference", "default", "winograd"] and rows[0]["ratio"] == "1.00"
    assert all(float(row["of matrix rate"].rstrip("%")) > 0 for row in rows)
    assert "| at | reference |" in done.output


def test_a_step_of_resnet18_is_counted_as_by_hand(program):
    """25.6 GFLOP an image under PGD-10: 23 passes of 0.56 G products and sums."""
    assert program("train").operations("resnet18", 1, 10) == pytest.approx(25.6e9, rel=0.01)


def test_evaluate(program, tmp_path):
    arguments = ["--model", "small", "--train-steps", "20", "--images", "8", "--batch", "8", "--share", "0.01"]
    arguments += ["--repeats", "1", "--output", str(tmp_path / "e.csv"), "--device", "cpu"]
    done = CliRunner().invoke(program("evaluate").main, arguments)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert [row["variant"] for row in rows] == ["pyautoattack", "network", "folded", "winograd"]
    assert rows[1]["other verdicts"] == "0"


def test_equivalence(program, tmp_path):
    arguments = ["--method", "at", "--variant", "folded", "--seeds", "2", "--epochs", "1", "--limit-train", "60"]
    arguments += ["--limit-test", "30", "--runs-dir", str(tmp_path / "runs"), "--output", str(tmp_path / "q.csv")]
    done = CliRunner().invoke(program("equivalence").main, [*arguments, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "q.csv").open()))
    assert [row["accuracy"] for row in rows] == ["clean", "pgd-20"]
    assert len(list((tmp_path / "runs").iterdir())) == 4


@pytest.mark.parametrize(
    ("interval", "seeds", "says"),
    [
        ((-0.4, 0.3), 5, "equivalent"),
        ((-0.4, 0.3), 4, "not shown"),
        ((-0.4, 0.6), 5, "not shown"),
        ((0.6, 2.0), 5, "different"),
        ((-3.0, -0.6), 3, "different"),
    ],
)
def test_equivalence_is_claimed_only_when_it_is_known(program, interval, seeds, says):
    assert program("equivalence").outcome(*interval, seeds) == says


def test_tf32_is_emulated_by_ten_bits_of_mantissa(program):
    search = program("search")
    given = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-12, 1 + 3 * 2**-12, -3.0 - 2**-12, 0.0])
    assert search.rounded(given).tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-10, -3.0, 0.0]
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 8), torch.rand(4, 64, requires_grad=True)
    exact = torch.nn.Linear(64, 8)
    exact.load_state_dict(layer.state_dict())
    search.emulate(torch.nn.Sequential(layer))
    (rounded,) = torch.autograd.grad(layer(x).square().sum(), x)
    (wanted,) = torch.autograd.grad(exact(x).square().sum(), x)
    for got, right in ((layer(x), exact(x)), (rounded, wanted)):
        assert 0 < (got - right).norm() < 2e-3 * right.norm()
