"""Every wrong request gets one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import re

import pytest
import torch
from command_line import FAST, call, refused

RUN = ["run", "--method", "at", "--dataset", "digits-lt"]
WRONG = [
    (["run", "--method", "rebal", "--dataset", "digits-lt"], "did you mean 'robal'"),
    (["run", "--method", "at", "--dataset", "digit-lt"], "did you mean 'digits-lt'"),
    ([*RUN, "--model", "resnet1"], "did you mean 'resnet18'"),
    ([*RUN, "--protocol", "digits"], "did you mean 'digits-v0'"),
    ([*RUN, "--protocol", "ltr-linf-v1"], "says nothing about digits-lt"),
    ([*RUN, "--track", "papier"], "papier"),
    ([*RUN, "--imbalance-ratio", "0.02"], "mean 50"),
    ([*RUN, "--imbalance-ratio", "-1"], "at least 1"),
    ([*RUN, "--imbalance-ratio", "nan"], "at least 1"),
    ([*RUN, "--imbalance-ratio", "500"], "classes empty"),
    ([*RUN, "--imbalance-ratio", "many"], "many"),
    ([*RUN, "--profile", "linear"], "linear"),
    ([*RUN, "--seed", "-1"], "seed must be"),
    ([*RUN, "--seed", "x"], "x"),
    ([*RUN, "--epochs", "0"], "1 or more"),
    ([*RUN, "--limit-train", "3"], "use 10 or more"),
    ([*RUN, "--holdout", "test"], "holdout"),
    ([*RUN, "--holdout", "val", "--imbalance-ratio", "124"], "none can be held out"),
    ([*RUN, "--tuned", "nowhere.json"], "ltbench tune"),
    ([*RUN, "--trials", "3"], "--trials"),
    ([*RUN, "--limit-test", "0"], "use 10 or more"),
    ([*RUN, "--limit-test", "-5"], "use 10 or more"),
    ([*RUN, "--set", "tail"], "NAME=VALUE"),
    ([*RUN, "--set", "attack.step=5"], "did you mean 'attack.steps'"),
    ([*RUN, "--set", "attack.steps=many"], "attack.steps"),
    ([*RUN, "--set", "attack.steps=-1"], "attack.steps"),
    ([*RUN, "--set", "attack.epsilon=wide"], "is not a number"),
    ([*RUN, "--set", "attack.epsilon=-0.1"], "at least 0"),
    ([*RUN, "--set", "attack.epsilon=8"], "for 8 of 255 write attack.epsilon=8/255"),
    ([*RUN, "--set", "attack.epsilon=0.7"], "times the radius of the evaluation, 0.15"),
    ([*RUN, "--set", "attack.step_size=2"], "for 2 of 255 write attack.step_size=2/255"),
    ([*RUN, "--set", "attack.step_size=inf"], "is not a number"),
    ([*RUN, "--set", "lr=-1"], "lr"),
    ([*RUN, "--set", "lr=nan"], "lr"),
    ([*RUN, "--set", "attack.start=anywhere"], "attack.start"),
    ([*RUN, "--set", "weight_decay=inf"], "weight_decay"),
    (["run", "--method", "reat", "--dataset", "digits-lt", "--set", "tail=maybe"], "one of official"),
    (["run", "--method", "reat", "--dataset", "digits-lt", "--set", "tial=off"], "did you mean 'tail'"),
    (["run", "--method", "trades", "--dataset", "digits-lt", "--set", "beta=nan"], "is a float"),
    (["run", "--method", "trades", "--dataset", "digits-lt", "--set", "beta=none"], "cannot be none"),
    ([*RUN, "--plugin", "robustl"], "did you mean 'robustlt'"),
    ([*RUN, "--plugin", "awp", "--plugin", "awp"], "named twice"),
    ([*RUN, "--set", "awp.gamma=0.1"], "unknown setting"),
    ([*RUN, "--plugin", "awp", "--set", "awp.gama=0.1"], "did you mean 'awp.gamma'"),
    (["run", "--method", "awp", "--dataset", "digits-lt"], "--plugin awp"),
    ([*RUN, "--precision", "fp16"], "fp16"),
    ([*RUN, "--crafting", "fast"], "fast"),
    ([*RUN, "--precision", "bf16", "--crafting", "winograd"], "computes in float32"),
    (
        ["run", "--method", "tau-norm", "--dataset", "digits-lt", "--precision", "bf16"],
        "precision would change nothing",
    ),
    (["eval", "nowhere", "--attack-search", "fp16"], "fp16"),
    (["eval", "nowhere", "--curve", "eps", "--attack-search", "folded"], "--curve does not use --attack-search"),
    (["eval", "nowhere", "--curve", "eps", "--attack", "fgsm"], "--curve does not use --attack: leave it out"),
    (["eval", "nowhere", "--curve", "eps", "--quick", "--again"], "--curve does not use --quick and --again"),
    (["eval", "nowhere", "--curve", "eps", "--examples", "x.npz"], "--examples does not use --curve"),
    (["eval", "nowhere", "--examples", "x.npz", "--limit-test", "9"], "--examples does not use --limit-test"),
    (["eval", "nowhere", "--quick", "--thorough"], "--quick does not use --thorough"),
    (["eval", "nowhere", "--thorough", "--attack", "pgd-20"], "--thorough does not use --attack"),
    (["eval", "--log", "x.txt", "-d", "digits-lt", "--torch", "a:b", "--quick"], "does not use"),
    (["eval", "nowhere", "--log", "x.txt", "-d", "digits-lt"], "--log does not use CHECKPOINT"),
    (["eval", "nowhere", "--quick", "--again"], "--again is for the whole evaluation"),
    (["eval", "nowhere", "--output", "there"], "--output is for what makes no record"),
    ([*RUN, "--on-nan", "skip-batch", "--set", "on_nan=lower-lr"], "contradict each other"),
    ([*RUN, "--device", "tpu"], "use auto, cpu, cuda"),
    ([*RUN, "--device", "gpu0"], "use auto, cpu, cuda"),
    ([*RUN, "--threads", "0"], "0"),
    (["run", "--dataset", "digits-lt"], "--method"),
    (["run", "--method", "at", "--dataset", "cifar10-lt"], "ltbench data prepare cifar10-lt"),
    (["run", "--method", "at", "--dataset", "cifar10-lt", "--data-dir", "nowhere"], "there is no folder"),
    ([*RUN, "--frobnicate"], "frobnicate"),
    (["report", "leaderboard"], "ltbench run --method reat --dataset digits-lt"),
    (["report", "leaderboard", "--records", "nowhere"], "nowhere"),
    (["eval", "nowhere"], "no checkpoint"),
    (["check", "raet"], "'reat'"),
    (["data", "info", "digits-lt", "--imbalance-ratio", "0"], "at least 1"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=lambda v: " ".join(v)[-60:] if isinstance(v, list) else "")
def test_wrong_request(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_and_absent(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "sees 0 CUDA devices" in refused(capsys, *RUN, "--device", "cuda")


@pytest.mark.parametrize("option", ["--runs-dir", "--results-dir"])
def test_folders_that_cannot_be_written(capsys, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    assert "cannot write to" in refused(capsys, *RUN, *FAST, option, "file/below")


def test_damaged_record_in_the_run_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [*RUN, *FAST, "--epochs", 1, "--limit-train", 50, "--limit-test", 20]
    assert call(capsys, *small)[0] == 0
    (path,) = tmp_path.glob("runs/*/record.json")
    good = path.read_text()
    for bad, says in (
        (good[: len(good) // 2], "is no record"),
        (good.replace('"schema_version": 1', '"schema_version": 99'), "(got 99)"),
        (re.sub('"digest": "[0-9a-f]{64}"', f'"digest": "{64 * "0"}"', good), "edited"),
        ("[]", "(got None)"),
        (good.replace('"seed": 0', '"seed": "zero"'), "run.seed"),
    ):
        path.write_text(bad)
        assert says in refused(capsys, *small)


def test_a_folder_that_links_to_itself_is_one_line(tmp_path, monkeypatch, capsys):
    """Not a RuntimeError, which is what pathlib raises before Python 3.13."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for arguments in (["report", "changes", "--against", "", "--results-dir", "loop"], ["record", "validate", "loop"]):
        code, out, err = call(capsys, *arguments)
        assert code in (1, 2)
        assert "Traceback" not in out + err and err.count("\n") <= 1
