"""``ltbench train`` and ``ltbench eval``."""

from __future__ import annotations

import csv
import importlib
import os
import sys

import pytest
import torch
from command_line import FAST, call, refused

from ltrobust_bench import verbs
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.progress import Silent
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


def test_what_attacks_searched_on_is_in_the_record(capsys, folder):
    part = ["--limit-test", 20, "--attack-search", "bf16", "--output", "here"]
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu", *part)
    assert code == 0 and "searched on a copy: bf16, no record" in " ".join(out.split())
    assert not (folder / "record.json").exists()
    assert (folder.parents[1] / "here" / "evaluation-bf16.csv").exists()
    code, out, _ = call(capsys, "eval", folder, "--device", "cpu", "--attack-search", "bf16")
    result = read_record(folder / "record.json").result
    assert code == 0 and result.search == "bf16" and result.searched is not None


def test_part_of_the_suite_is_printed_only(capsys, folder):
    code, out, _ = call(capsys, "eval", folder / "model.safetensors", "--attack", "pgd-5", "--limit-test", 20)
    assert code == 0 and "pgd-5" in out and "fgsm" not in out
    assert "no record" in " ".join(out.split()), "wherever the line is broken"
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
    (folder,) = nets.glob("runs/eval-own_nets.Net-net-digits-lt-*")
    assert code == 0 and f"{folder.name.removeprefix('eval-')} (the suite, no record)" in " ".join(out.split())
    header, clean, *_, union = (folder / "evaluation.csv").read_text().splitlines()
    assert header.startswith("attack,balanced,head,medium,tail")
    assert clean.startswith("clean,") and union.startswith("union,")
    assert not list(nets.glob("runs/*/evaluation.npz"))
    code, out, _ = call(capsys, "eval", "--torch", "own_nets:Net", *options, "--curve", "steps", "--output", "drawn")
    assert code == 0 and (nets / "drawn" / "curve-steps.svg").exists()


ABOUT = ["weights_sha256", "dataset", "train_sha256", "test_sha256", "protocol", "protocol_digest", "attack_terms"]


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_checkpoints_of_one_name_do_not_share_a_folder_and_tables_say_what_they_are_about(capsys, nets):
    asked = ["--dataset", "digits-lt", "--protocol", "smoke", "--limit-test", 20]
    for fold in (1, 2):
        weights = {"layer.weight": torch.full((10, 64), float(fold)), "layer.bias": torch.zeros(10)}
        (nets / f"fold{fold}").mkdir()
        torch.save(weights, nets / f"fold{fold}" / "best.pt")
        options = ["--torch", "own_nets:Net", "--weights", nets / f"fold{fold}" / "best.pt", *asked]
        assert call(capsys, "eval", *options)[0] == 0
        assert call(capsys, "eval", *options, "--curve", "eps")[0] == 0
    first, second = sorted(nets.glob("runs/eval-own_nets.Net-best-digits-lt-*"))
    assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
    tables = [table(folder / name) for folder in (first, second) for name in ("evaluation.csv", "curve-eps.csv")]
    assert all(list(row)[-7:] == ABOUT for rows in tables for row in rows)
    assert len({row["weights_sha256"] for rows in tables for row in rows}) == 2
    rows = {row["attack"]: row for row in tables[0]}
    task = make_task("digits-lt", protocol="smoke", limit_test=20)
    assert rows["pgd-5"]["test_sha256"] == task.split.test_sha256 and rows["clean"]["attack_terms"] == ""
    assert rows["pgd-5"]["protocol_digest"] == task.protocol.digest("digits-lt")
    assert rows["pgd-5"]["attack_terms"].startswith(f"pgd Linf epsilon={task.epsilon:g} ")
    assert "steps=5" in rows["pgd-5"]["attack_terms"]
    assert "steps=20" in tables[1][-1]["attack_terms"] and tables[1][0]["attack_terms"] == ""


def test_tables_of_a_network_of_ours_name_the_weights_of_its_record(capsys, folder):
    assert call(capsys, "eval", folder, "--device", "cpu", "--curve", "steps")[0] == 0
    assert call(capsys, "eval", folder, "--device", "cpu")[0] == 0
    assert call(capsys, "report", "analyse", folder)[0] == 0
    record = read_record(folder / "record.json")
    written = [folder / "curve-steps.csv", *sorted((folder / "analysis").glob("*.csv"))]
    assert len(written) == 5
    for path in written:
        for row in table(path):
            assert row["weights_sha256"] == record.result.weights_sha256
            assert row["test_sha256"] == record.run.test_index_sha256
            assert row["protocol_digest"] == record.run.protocol_digest


class Stop(Silent):
    """Interrupts an evaluation before its last attack."""

    def start(self, what, total, done=0):
        if what.startswith("fab"):
            raise KeyboardInterrupt


class Watch(Silent):
    def __init__(self):
        self.started, self.said = [], []

    def start(self, what, total, done=0):
        self.started.append(what)

    def note(self, text):
        self.said.append(text)


TERMS = {"dataset": "digits-lt", "limit_test": 20, "attacks": ["apgd-ce", "fab-t"], "device": "cpu"}
CHANGED = """
import torch
from torch import nn
from parts.scale import scaled
import unrelated_to_the_net  # noqa


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return scaled(self.layer(x.flatten(1)))


def net():
    torch.manual_seed(0)
    return Net()


def bare(x):
    return scaled(x.flatten(1)[:, :10] + x.flatten(1)[:, 10:20])
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's package: a network, and a helper that it imports; and how a new process would load them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "scale.py").write_text("def scaled(z):\n    return z\n")
    (tmp_path / "changing.py").write_text(CHANGED)
    (tmp_path / "unrelated_to_the_net.py").write_text("import json\n")
    (tmp_path / "training_script.py").write_text("")

    def load():
        for name in ("changing", "parts", "parts.scale", "unrelated_to_the_net", "training_script"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        importlib.import_module("training_script")
        return importlib.import_module("changing")

    yield tmp_path, load
    for name in ("changing", "parts", "parts.scale", "unrelated_to_the_net", "training_script"):
        sys.modules.pop(name, None)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) + "# so that the file has another size\n")


CHANGES = {
    "nothing": (lambda folder: None, None),
    "another file of the folder": (lambda folder: (folder / "training_script.py").write_text("1\n"), None),
    "its forward": (lambda folder: edit(folder / "changing.py", "scaled(self.", "-scaled(self."), "code (changing.py)"),
    "a helper": (
        lambda folder: edit(folder / "parts" / "scale.py", "return z", "return 0.5 * z"),
        "code (parts/scale.py)",
    ),
    "its weights": (lambda folder: edit(folder / "changing.py", "seed(0)", "seed(1)"), "weights and"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupted_evaluation_goes_on_if_the_model_is_what_it_was(change, own):
    folder, load = own
    state, (make, says) = folder / "state" / "evaluation.npz", CHANGES[change]
    with pytest.raises(KeyboardInterrupt):
        verbs.evaluate(load().net(), state=state, progress=Stop(), **TERMS)
    assert state.exists()
    make(folder)
    model, watch = load().net(), Watch()
    resumed = verbs.evaluate(model, state=state, progress=watch, **TERMS)
    assert not state.exists() and watch.started == (["fab-t"] if says is None else ["apgd-ce", "fab-t"])
    again = [line for line in watch.said if "begun again" in line]
    assert again == [] if says is None else len(again) == 1 and says in again[0]
    fresh = verbs.evaluate(model, **TERMS)
    assert all((resumed.bits[name] == value).all() for name, value in fresh.bits.items())


def test_a_plain_function_keeps_its_state_too(own):
    folder, load = own
    state = folder / "evaluation.npz"
    for change in (None, "its source", "what it refers to"):
        with pytest.raises(KeyboardInterrupt):
            verbs.evaluate(load().bare, state=state, progress=Stop(), **TERMS)
        if change == "its source":
            edit(folder / "changing.py", "def bare(x):", "def bare(x):\n    x = x / 2")
        function = load().bare
        if change == "what it refers to":  # no file tells
            function.__globals__["scaled"] = lambda z: z / 2
        if change is None:
            watch = Watch()
            verbs.evaluate(function, state=state, progress=watch, **TERMS)
            assert watch.started == ["fab-t"]
        else:
            with pytest.warns(
                UserWarning, match="begun again: .*logits" if change != "its source" else r"changing\.py"
            ):
                verbs.evaluate(function, state=state, **TERMS)


def test_the_code_of_a_factory_is_the_networks(capsys, own, monkeypatch):
    """The command line names the module of the factory, whose network may be of an installed class."""
    folder, load = own
    factory = folder / "parts" / "factory.py"
    factory.write_text("import torch\nfrom torch import nn\ndef net():\n    torch.manual_seed(0)\n"
                       "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n")  # fmt: skip
    load()
    from ltrobust_bench.evaluation.identity import code_of
    from ltrobust_bench.interop.factory import from_factory

    model = from_factory("parts.factory:net", None)
    assert code_of(model) == {} and set(code_of(model, ["parts.factory"])) == {"parts/factory.py"}
    sys.modules.pop("parts.factory")


def test_answers_within_rounding_are_the_same_and_stay_what_is_compared_with():
    from ltrobust_bench.evaluation.identity import settled

    parts = {"weights": "a", "logits": [[1.0, -2.0]], "code": {}}
    kept, changed = settled(parts, "")
    assert changed == []
    assert settled({**parts, "logits": [[1.001, -2.001]]}, kept) == (kept, [])
    assert settled({**parts, "logits": [[1.01, -2.0]]}, kept)[1] == ["logits"]
    assert settled({**parts, "weights": "b"}, kept)[1] == ["weights"]
    assert settled(parts, "0123abcd")[1] == ["code of ltbench"]


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


def test_a_network_in_pieces(capsys, tmp_path, monkeypatch):
    """``--shard`` holds for that command alone; what it wrote is read by all."""
    monkeypatch.delenv("LTBENCH_SHARD", raising=False)
    asked = ["--method", "erm", "--dataset", "digits-lt", "--limit-train", 60, "--epochs", 1, "--runs-dir", tmp_path]
    code, _, err = call(capsys, "train", *asked, *FAST, "--shard", "0.03")
    assert code == 0 and "LTBENCH_SHARD" not in os.environ, err
    (folder,) = tmp_path.iterdir()
    assert not (folder / "model.safetensors").exists() and len(list(folder.glob("model.safetensors-*-of-*"))) > 1
    code, out, err = call(capsys, "eval", folder, "--limit-test", 10, "--attack", "fgsm", "--device", "cpu")
    assert code == 0 and "fgsm" in out, err
    assert "Invalid value" in refused(capsys, "train", *asked, "--shard", "0")
