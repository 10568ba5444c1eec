"""Other people's evaluations: adversarial images and logs, their splits, their normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ltrobust_bench as lt
from ltrobust_bench.cli.main import main
from ltrobust_bench.data.split import index_sha256
from ltrobust_bench.errors import UsageError
from ltrobust_bench.interop.autoattack_log import read_log
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.verbs.rescoring import rescore


def run_cli(capsys, *arguments):
    capsys.readouterr()
    code = main(list(arguments))
    seen = capsys.readouterr()
    return code, seen.out + seen.err


TERMS = {"protocol": "smoke", "device": "cpu"}


@pytest.fixture(scope="module")
def task():
    return make_task("digits-lt", protocol="smoke")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def theirs(task):
    """The whole test set in its own order, moved by a random sign times epsilon."""
    clean = torch.from_numpy(task.source.test_images.astype(np.float32)) / 255
    noise = torch.randint(0, 2, clean.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return clean, (clean + task.epsilon * noise).clamp(0, 1), torch.from_numpy(np.array(task.source.test_labels)).long()


def expected(task, model, clean, moved):
    with torch.no_grad():
        right = [(model(x).argmax(1).numpy() == task.source.test_labels)[task.split.test] for x in (clean, moved)]
    return right[0], right[0] & right[1]


def test_what_autoattack_torchattacks_and_numpy_save_scores_alike(tmp_path, task, model, theirs):
    clean, moved, labels = theirs
    index = np.random.default_rng(0).permutation(len(moved))
    torch.save({"adv_complete": moved}, tmp_path / "aa.pth")
    torch.save({"adv_inputs": moved, "labels": labels, "save_type": "float"}, tmp_path / "torchattacks.pt")
    torch.save((moved, labels), tmp_path / "pair.pt")
    torch.save(moved, tmp_path / "alone.pt")
    np.savez(tmp_path / "ours.npz", images=moved.numpy()[index], index=index)
    np.savez(tmp_path / "last.npz", x_adv=moved.numpy().transpose(0, 2, 3, 1), y=labels.numpy())
    want = expected(task, model, clean, moved)
    for path in tmp_path.iterdir():
        result = rescore(model, "digits-lt", path, **TERMS)
        assert np.array_equal(result.bits["clean"], want[0]) and np.array_equal(result.bits["examples"], want[1]), path
        assert result.about.attacks["examples"].startswith(f"{path.name} sha256=")


def test_a_part_of_the_images_is_scored_as_far_as_it_goes(tmp_path, task, model, theirs):
    clean, moved, _ = theirs
    torch.save({"adv_complete": moved[:100]}, tmp_path / "aa.pth")
    result = rescore(model, "digits-lt", tmp_path / "aa.pth", **TERMS)
    covered = task.split.test < 100
    want = expected(task, model, clean, moved)[1][covered]
    assert np.array_equal(result.bits["examples"], want)
    assert result.about.test_sha256 == index_sha256(task.split.test[covered]) != task.split.test_sha256
    torch.save({"adv_complete": moved}, tmp_path / "aa.pth")
    assert rescore(model, "digits-lt", tmp_path / "aa.pth", **TERMS).about.test_sha256 == task.split.test_sha256


def test_images_beyond_the_radius_break_nothing(tmp_path, task, model, theirs):
    clean, moved, labels = theirs
    far = moved.clone()
    first = task.split.test[:20]
    far[first] = 1 - clean[first]
    torch.save({"adv_complete": far}, tmp_path / "aa.pth")
    result = rescore(model, "digits-lt", tmp_path / "aa.pth", **TERMS)
    assert np.array_equal(result.bits["examples"][:20], result.bits["clean"][:20])
    torch.save({"adv_complete": clean.flip(0)}, tmp_path / "flipped.pth")
    with pytest.raises(UsageError, match="not the first test images in their order"):
        rescore(model, "digits-lt", tmp_path / "flipped.pth", **TERMS)
    torch.save((clean.flip(0), labels.flip(0)), tmp_path / "shuffled.pth")
    with pytest.raises(UsageError, match="was the loader shuffled"):
        rescore(model, "digits-lt", tmp_path / "shuffled.pth", **TERMS)
    torch.save({"adv_complete": (moved - 0.5) / 0.5}, tmp_path / "normalised.pth")
    with pytest.raises(UsageError, match="before a model normalises them"):
        rescore(model, "digits-lt", tmp_path / "normalised.pth", **TERMS)
    torch.save({"x": moved}, tmp_path / "unnamed.pth")
    with pytest.raises(UsageError, match="no images under one of"):
        rescore(model, "digits-lt", tmp_path / "unnamed.pth", **TERMS)


LOG = """using standard version including apgd-ce, apgd-t, fab-t, square.
initial accuracy: 80.00%
apgd-ce - 1/2 - 100 out of 500 successfully perturbed
apgd-ce - 2/2 - 60 out of 300 successfully perturbed
robust accuracy after APGD-CE: 64.00% (total time 1.0 s)
apgd-t - 1/2 - 20 out of 500 successfully perturbed
robust accuracy after APGD-T: 62.00% (total time 2.0 s)
robust accuracy after FAB-T: 62.00% (total time 2.0 s)
robust accuracy after SQUARE: 60.00% (total time 2.0 s)
max Linf perturbation: 0.15000, nan in tensor: 0, max: 1.00000, min: 0.00000
robust accuracy: 60.00%
"""


def test_a_log_of_autoattack(tmp_path, capsys):
    path = tmp_path / "log.txt"
    path.write_text("[info] " + LOG)
    log = read_log(path)
    assert (log.images, log.clean, log.radius, log.threat_model, log.standard) == (1000, 0.8, 0.15, "Linf", True)
    assert list(log.after.values()) == [0.64, 0.62, 0.62, 0.6]
    assert log.remarks(0.15, "Linf") == ["Square breaks another 2.0 points: gradients may be masked"]
    assert any("not comparable" in remark for remark in log.remarks(8 / 255, "Linf"))
    code, out = run_cli(capsys, "eval", "--log", str(path), "-d", "digits-lt")
    assert code == 0 and "1000 images" in out and "56.9-63.0" in out
    path.write_text(LOG.replace("FAB-T: 62", "FAB-T: 63"))
    with pytest.raises(UsageError, match="accuracy rises"):
        read_log(path)
    path.write_text("hello")
    with pytest.raises(UsageError, match="no log of AutoAttack"):
        read_log(path)


def test_somebodys_own_split_decides_head_and_tail(model):
    counts = list(range(10, 110, 10))  # the last labels are the head
    terms = TERMS | {"attacks": ["fgsm"]}
    ours, own = (lt.evaluate(model, "digits-lt", train_counts=given, **terms) for given in (None, counts))
    per_class = own.metrics("clean").per_class
    assert np.isclose(own.metrics("clean").head, per_class[7:].mean()) and np.isclose(
        own.metrics("clean").tail, per_class[:3].mean()
    )
    assert own.train_counts == counts and own.about.train_sha256.startswith("counts-")
    assert own.about.test_sha256 == ours.about.test_sha256 and ours.about.train_sha256 != own.about.train_sha256
    for wrong, says in (([1, 2], "2 training counts for 10 classes"), ([0] * 10, "whole numbers of at least 1")):
        with pytest.raises(UsageError, match=says):
            lt.evaluate(model, "digits-lt", train_counts=wrong, **terms)
    with pytest.raises(UsageError, match="leave imbalance ratio and profile out"):
        lt.evaluate(model, "digits-lt", train_counts=counts, imbalance_ratio=10, **terms)


def test_normalise_is_what_a_model_of_normalised_images_wants(model):
    """A linear model of z = (x - m) / s is one of x with weights W / s and biases b - sum(W m / s)."""
    mean, std = 0.3, 0.4
    inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        inner[1].weight.copy_(model[1].weight * std)
        inner[1].bias.copy_(model[1].bias + (model[1].weight * mean).sum(1))
    terms = TERMS | {"attacks": ["fgsm"]}
    plain = lt.evaluate(model, "digits-lt", **terms)
    wrapped = lt.evaluate(inner, "digits-lt", normalise=([mean], [std]), **terms)
    assert all(np.array_equal(plain.bits[name], wrapped.bits[name]) for name in plain.bits)
    for wrong, says in ((([0.1, 0.2], [1]), "1 or 1 are needed"), (([0], [0]), "positive"), (([125], [63]), "255")):
        with pytest.raises(UsageError, match=says):
            lt.evaluate(inner, "digits-lt", normalise=wrong, **terms)


def test_the_command_line_says_what_was_mapped_and_scores(tmp_path, monkeypatch, capsys, task, model, theirs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    torch.save({"ema": model.state_dict(), "net": {f"module.{n}": v for n, v in model.state_dict().items()}}, "net.pt")
    torch.save({"adv_complete": theirs[1]}, "aa.pth")
    base = ["eval", "--torch", "nets_of_mine:net", "-d", "digits-lt", "--protocol", "smoke", "--device", "cpu"]
    code, out = run_cli(capsys, *base, "--weights", "net.pt", "--examples", "aa.pth", "--output", "out")
    assert code == 0, out
    assert "weights: `net` of net.pt; `module.` left out of the names; others fit, too: ema" in out
    rows = (tmp_path / "out" / "evaluation-examples.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["attack", "clean", "examples", "union"]
    code, out = run_cli(capsys, *base, "--train-counts", "1,2", "-a", "fgsm")
    assert code == 2 and "2 training counts for 10 classes" in out
    code, out = run_cli(capsys, *base, "--normalise", "a", "1", "-a", "fgsm")
    assert code == 2 and "no list of numbers" in out
    code, out = run_cli(
        capsys, *base, "--train-counts", "10,20,30,40,50,60,70,80,90,100", "-a", "fgsm", "--normalise", "0", "1"
    )
    assert code == 0, out
