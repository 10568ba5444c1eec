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
