"""Checks that take minutes: ``make test-slow``."""

from __future__ import annotations

import logging
import subprocess

import numpy as np
import pytest
import torch

from ltrobust_bench import bench
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.plan import make_plan
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import read_record
from ltrobust_bench.training.trainer import train_plan

pytestmark = pytest.mark.slow


def test_full_autoattack_is_the_official_verdict(tmp_path):
    """The protocol's AutoAttack, every argument as stated, against the package's own evaluation, image by image."""
    from pyautoattack import AutoAttack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    plan = make_plan("at", "digits-lt", epochs=20, limit_test=100)
    model = bench.load_model(train_plan(plan, tmp_path, torch.device("cpu")).model_path, device="cpu").model
    index = plan.task.split.test
    data = DeviceData.of(plan.task.source.test_images[index], plan.task.source.test_labels[index], torch.device("cpu"))
    suite = load_protocol("digits-v0").evaluation
    auto = [a for a in suite.attacks if a.kind == "autoattack"]
    ours = evaluate_images(model, data, classes=10, epsilon=0.15, suite=suite, attacks=auto).bits["autoattack"]
    official = AutoAttack(model, eps=0.15, seed=suite.seed, device="cpu", version="standard")
    with frozen(model):
        x, y = data.images.float() / 255, data.labels
        _, predicted = official.run_standard_evaluation(x, y, batch_size=suite.batch_size)
    assert np.array_equal(ours, (predicted == y).numpy())
    assert 0 < ours.sum() < len(ours)


def test_demo(root, tmp_path):
    """The newcomer's first command, in a fresh clone that shares this environment."""
    subprocess.run(["git", "clone", "--quiet", root, tmp_path / "clone"], check=True)
    (tmp_path / "clone" / ".venv").symlink_to(root / ".venv")
    done = subprocess.run(["make", "demo"], cwd=tmp_path / "clone", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "clone" / "demo").glob("runs/*/record.json"))) == 2


def test_real_cifar10_with_the_main_protocol(cifar10_folder, tmp_path):
    """ResNet-18, ltr-linf-v1 and its whole suite on a few real images."""
    record = bench.run(
        "reat", "cifar10-lt", epochs=1, limit_train=100, limit_test=20, data_dir=cifar10_folder,
        runs_dir=tmp_path / "runs", results_dir=None, device="cpu",
    )  # fmt: skip
    assert record.status.reduced and record.run.model == "resnet18" and record.run.epsilon == 8 / 255
    assert record.attacks[-1] == "autoattack"
    (path,) = tmp_path.glob("runs/*/record.json")
    assert read_record(path) == record
