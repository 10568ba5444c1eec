"""The commands of ``benchmarks/``."""

from __future__ import annotations

import importlib.util
import logging
import sys

import numpy as np
import pyautoattack
import pytest
import torch
from pyautoattack.examples.resnet import ResNet18
from short_autoattack import SHORT, shorten
from torch import nn

from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.data.sources import Source
from ltrobust_bench.evaluation.evaluator import frozen
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite


@pytest.fixture
def equivalence(root):
    """``benchmarks/autoattack_equivalence.py`` as a module."""
    spec = importlib.util.spec_from_file_location("equivalence", root / "benchmarks" / "autoattack_equivalence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ended(equivalence, monkeypatch, capsys):
    """Exit code, standard output and standard error of the command."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autoattack_equivalence.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            equivalence.main()
        return end.value.code, *capsys.readouterr()

    return call


def test_the_package_ships_the_weights(equivalence):
    assert equivalence.SHIPPED.is_file()


def test_their_resnet_in_ours_is_the_same_function(equivalence, tmp_path):
    torch.manual_seed(0)
    theirs = ResNet18()
    with torch.no_grad():
        theirs(torch.rand(8, 3, 32, 32))  # moves the running statistics away from 0 and 1
    torch.save(theirs.state_dict(), tmp_path / "model_test.pt")
    ours = equivalence.network(tmp_path / "model_test.pt")
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.eval()(x))


class Steps(nn.Module):
    """Images in nine grey levels; almost everywhere, gradients are 0."""

    def forward(self, x):
        return (x * 8).round() / 8


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize(
    ("first", "broken_by"), [(nn.Identity(), {"apgd-ce", "apgd-t"}), (Steps(), {"apgd-ce", "apgd-t", "square"})]
)
def test_verdicts_name_the_attack_that_breaks_first_and_agree(equivalence, monkeypatch, first, broken_by):
    authors = pyautoattack.AutoAttack
    monkeypatch.setattr(pyautoattack, "AutoAttack", lambda *given, **named: shorten(authors(*given, **named)))
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    torch.manual_seed(1)
    model = nn.Sequential(first, nn.Flatten(), nn.Linear(192, 64), nn.Tanh(), nn.Linear(64, 10))
    with torch.no_grad():
        model[2].weight.mul_(3)
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    labels = model(to_unit(images)).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 10
    suite = Suite(seed=0, batch_size=16, attacks=[SHORT])
    with frozen(model):
        official = equivalence.official_verdicts(model, to_unit(images), labels, 0.02, suite, Silent())
    assert official == equivalence.own_verdicts(model, DeviceData(images, labels), 0.02, suite, Silent())
    assert official[0] == "misclassified" and {"standing", *broken_by} <= set(official)


@pytest.fixture
def prepared(equivalence, monkeypatch, tmp_path):
    """Instead of an hour of attacks: given verdicts of four images."""
    data = Source(*(np.zeros((4, 3, 32, 32), np.uint8), np.arange(4)) * 2, tuple("abcdefghij"))
    sides = {"official": ["apgd-ce", "standing", "standing", "misclassified"], "own": None}
    monkeypatch.setattr(equivalence, "network", lambda path: nn.Identity())
    monkeypatch.setattr(equivalence, "load_source", lambda *_: data)
    for side in sides:
        monkeypatch.setattr(equivalence, f"{side}_verdicts", lambda *_, side=side: sides[side])
    return sides


def test_equal_verdicts_are_exit_code_0_and_a_table(ended, prepared, tmp_path):
    prepared["own"] = list(prepared["official"])
    code, out, _ = ended("--images", 4, "--output", tmp_path / "new" / "all.csv")
    assert code == 0 and "0 of 4 verdicts differ" in out and "50.0%" in out
    assert (tmp_path / "new" / "all.csv").read_text().splitlines() == [
        "image,label,pyautoattack,ltrobust_bench",
        "0,a,apgd-ce,apgd-ce",
        "1,b,standing,standing",
        "2,c,standing,standing",
        "3,d,misclassified,misclassified",
    ]


def test_another_verdict_is_named_and_exit_code_1(ended, prepared):
    prepared["own"] = ["apgd-t", "standing", "standing", "misclassified"]
    code, out, _ = ended("--images", 4)
    assert code == 1 and "1 of 4 verdicts differ" in out
    assert "image 0: apgd-ce by pyautoattack, apgd-t by ltrobust-bench" in out


def test_bad_input_is_one_line(ended, tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    for arguments, says in (
        (("--weights", tmp_path / "none.pt"), "pip download --no-deps pyautoattack==0.2.0"),
        (("--weights", tmp_path / "text.pt"), "is damaged, or an interrupted download"),
        (("--weights", tmp_path / "other.pt"), "is no network of"),
        (("--epsilon", "some"), "is not a number"),
        (("--epsilon", "0"), "is no radius"),
        (("--data-dir", tmp_path / "none"), "there is no folder"),
        (("--output", tmp_path / "text.pt" / "x.csv"), "cannot write to"),
    ):
        code, _, err = ended(*arguments)
        assert code == 2 and err.startswith("Error: ") and len(err.splitlines()) == 1 and says in err, err
