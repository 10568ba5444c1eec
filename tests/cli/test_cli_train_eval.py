"""``ltbench train`` and ``ltbench eval``."""

from __future__ import annotations

import pytest
from command_line import FAST, call, refused

from ltrobust_bench.records.io import read_record


@pytest.fixture
def folder(capsys, tmp_path, monkeypatch):
    """The run folder of a trained network."""
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "train", "--method", "at", "--dataset", "digits-lt", *FAST)
    assert code == 0 and "on training images" in out
    (folder,) = tmp_path.glob("runs/*")
    assert (folder / "model.safetensors").exists() and not (folder / "record.json").exists()
    header, first, *_ = (folder / "training.csv").read_text().splitlines()
    assert header == "epoch,lr,loss,train_clean,train_robust" and first.startswith("1,0.1,")
    return folder


def test_eval_writes_the_record_that_run_would_have_written(capsys, folder):
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu")
    assert code == 0 and "union" in out
    evaluated = read_record(folder / "record.json")
    code, _, _ = call(
        capsys, "run", "--method", "at", "--dataset", "digits-lt", *FAST, "--runs-dir", folder.parents[1] / "other"
    )
    (path,) = (folder.parents[1] / "other").glob("*/record.json")
    assert read_record(path).result == evaluated.result


def test_a_finished_evaluation_is_kept_unless_asked_for_again(capsys, folder):
    assert call(capsys, "eval", folder, "--device", "cpu")[0] == 0
    path = folder / "record.json"
    changed = path.read_text().replace('"trials": 0', '"trials": 3')
    path.write_text(changed)
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu")
    assert code == 0 and "already finished" in out and path.read_text() == changed
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu", "--again")
    assert code == 0 and "already finished" not in out and "clean accuracy" in out
    assert read_record(path).status.trials == 3
    assert not (folder / "evaluation.npz").exists()


def test_the_cost_is_told_before_the_attacks_start(capsys, folder):
    _, out, _ = call(capsys, "eval", folder, "--device", "cpu")
    assert out.index("attacking costs about") < out.index("clean accuracy")
    assert "images forward and backward" in out


def test_a_search_on_the_folded_copy_is_in_the_record_and_one_in_bf16_makes_none(capsys, folder):
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu", "--attack-search", "bf16", "--output", "here")
    assert code == 0 and "searched on a copy: bf16, no record" in " ".join(out.split())
    assert not (folder / "record.json").exists()
    assert (folder.parents[1] / "here" / "evaluation-bf16.csv").exists()
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu", "--attack-search", "folded")
    assert code == 0 and read_record(folder / "record.json").result.search == "folded"


def test_part_of_the_suite_is_printed_only(capsys, folder):
    code, out, _ = call(capsys, "eval", folder / "model.safetensors", "--attack", "pgd-5", "--limit-test", 20)
    assert code == 0 and "pgd-5" in out and "fgsm" not in out and "no record" in out
    assert not (folder / "record.json").exists()


def test_wrong_checkpoints(capsys, folder, tmp_path):
    assert "no checkpoint at" in refused(capsys, "eval", tmp_path / "nothing")
    assert "trained on digits-lt, not on cifar10-lt" in refused(capsys, "eval", folder, "--dataset", "cifar10-lt")
    assert "trained on digits-lt" in refused(capsys, "eval", folder, "-d", "cifar10-lt", "--limit-test", 10)
    assert "did you mean 'pgd-5'" in refused(capsys, "eval", folder, "--attack", "pgd5")
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-9])
    assert "no readable safetensors file" in refused(capsys, "eval", folder)


def test_curves_are_printed_written_and_drawn(capsys, folder, tmp_path):
    code, out, _ = call(capsys, "eval", folder, "--curve", "eps", "--limit-test", 20)
    assert code == 0 and "medium" in out and (folder / "curve-eps.csv").exists() and (folder / "curve-eps.pdf").exists()
    place = ["--limit-test", 20, "--output", tmp_path / "out"]
    assert call(capsys, "eval", folder, "--curve", "steps", *place)[0] == 0
    assert (tmp_path / "out" / "curve-steps.png").exists()
    assert not (folder / "record.json").exists()


def test_single_attacks_and_transfer(capsys, folder):
    options = ["--limit-test", 20, "--attack", "apgd-dlr", "--transfer-from", folder]
    code, out, _ = call(capsys, "eval", folder, *options)
    assert code == 0 and "apgd-dlr" in out and "transfer" in out
    assert "'square'" in refused(capsys, "eval", folder, "--attack", "sqare")


NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))


def bright():
    # The class means of the digits as templates, for pixels from 0 to 255.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    templates = torch.stack([torch.tensor(images[labels == c].mean(axis=0) / 16 * 255).float() for c in range(10)])
    net = Net()
    net.layer.weight.data = templates
    net.layer.bias.data = -0.5 * templates.square().sum(dim=1)
    return net


def nan():
    net = Net()
    nn.init.constant_(net.layer.bias, float("nan"))
    return net


def wide():
    net = Net()
    net.layer = nn.Linear(64, 7)
    return net
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with a user's own networks, and weights for them."""
    import sys

    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    (tmp_path / "own_nets.py").write_text(NETS)
    generator = torch.Generator().manual_seed(0)
    weights = {"layer.weight": torch.randn(10, 64, generator=generator), "layer.bias": torch.zeros(10)}
    torch.save(weights, tmp_path / "net.pt")
    return tmp_path


def test_a_network_of_somebody_else(capsys, nets):
    options = ["--weights", "net.pt", "--dataset", "digits-lt", "--protocol", "smoke", "--limit-test", 40]
    code, out, _ = call(capsys, "eval", "--torch", "own_nets:Net", *options)
    assert code == 0 and "own_nets.Net-net-digits-lt (the suite, no record)" in out
    table = nets / "runs" / "eval-own_nets.Net-net-digits-lt" / "evaluation.csv"
    header, clean, *_, union = table.read_text().splitlines()
    assert header.startswith("attack,balanced,head,medium,tail") and header.endswith("class_9")
    assert clean.startswith("clean,") and union.startswith("union,")
    assert not list(nets.glob("runs/*/evaluation.npz"))
    code, out, _ = call(capsys, "eval", "--torch", "own_nets:Net", *options, "--curve", "steps", "--output", "drawn")
    assert code == 0 and (nets / "drawn" / "curve-steps.svg").exists()


def test_an_interrupted_evaluation_of_somebody_elses_network_goes_on(nets):
    from ltrobust_bench import verbs
    from ltrobust_bench.interop.factory import from_factory
    from ltrobust_bench.progress import Silent

    class Stop(Silent):
        def start(self, label, total, done=0):
            if label.startswith("fab"):
                raise KeyboardInterrupt
            started.append(label)

    class Watch(Silent):
        def start(self, label, total, done=0):
            started.append(label)

    started: list[str] = []
    terms = {"dataset": "digits-lt", "limit_test": 20, "attacks": ["apgd-ce", "apgd-dlr", "fab-t"], "device": "cpu"}
    model, state = from_factory("own_nets:Net", None), nets / "state" / "evaluation.npz"
    whole = verbs.evaluate(model, **terms)
    with pytest.raises(KeyboardInterrupt):
        verbs.evaluate(model, state=state, progress=Stop(), **terms)
    assert state.exists() and started == ["apgd-ce", "apgd-dlr"]
    started.clear()
    resumed = verbs.evaluate(model, state=state, progress=Watch(), **terms)
    assert started == ["fab-t"] and not state.exists()
    assert all((resumed.bits[name] == value).all() for name, value in whole.bits.items())


def test_models_that_are_no_classifiers_of_these_images(capsys, nets):
    asked = ["--dataset", "digits-lt", "--protocol", "smoke"]
    assert "NaN" in refused(capsys, "eval", "--torch", "own_nets:nan", *asked, code=1)
    assert "returned (100, 7) for 100 images" in refused(capsys, "eval", "--torch", "own_nets:wide", *asked, code=1)
    assert "returned (100, 64)" in refused(capsys, "eval", "--torch", "torch.nn:Flatten", *asked, code=1)
    assert "needs normalised input" in refused(capsys, "eval", "--torch", "own_nets:bright", *asked, code=1)
    assert "left over" in refused(capsys, "eval", "--torch", "torch.nn:Flatten", "--weights", "net.pt", *asked)


def test_one_model_from_one_place(capsys, nets):
    line = refused(capsys, "eval", "--dataset", "digits-lt")
    assert "name one model" in line and "got none" in line
    assert "got CHECKPOINT and --torch" in refused(capsys, "eval", "x", "--torch", "own_nets:Net")
    assert "belongs to --torch or --official" in refused(capsys, "eval", "x", "--weights", "net.pt")
    assert "needs --dataset" in refused(capsys, "eval", "--torch", "own_nets:Net")
    assert "--weights FILE" in refused(capsys, "eval", "--official", "robal", "--dataset", "digits-lt")
    assert "belongs to --official" in refused(capsys, "eval", "--torch", "own_nets:Net", "--set", "a=b")
    official = ["--official", "robal", "--weights", "net.pt", "--dataset", "digits-lt"]
    assert "is no network of the RoBal, REAT or AT-BSL" in refused(capsys, "eval", *official)
    assert "unknown method" in refused(capsys, "eval", "--official", "robaal", *official[2:])
    assert "no models for digits-lt" in refused(capsys, "eval", "--robustbench", "X", "--dataset", "digits-lt")
