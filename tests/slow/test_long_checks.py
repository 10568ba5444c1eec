"""Checks that take minutes: ``make test-slow``."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ltrobust_bench import verbs
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import read_record
from ltrobust_bench.training.trainer import train_plan

pytestmark = pytest.mark.slow


def test_full_autoattack_is_the_official_verdict(tmp_path):
    """The protocol's AutoAttack, every argument as stated, against the package's own evaluation, image by image."""
    from pyautoattack import AutoAttack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    plan = make_plan("at", "digits-lt", epochs=20, limit_test=100)
    model = verbs.load_model(train_plan(plan, tmp_path, torch.device("cpu")).model_path, device="cpu").model
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


def test_autoattack_equivalence_command(root, cifar10_folder, tmp_path):
    """The package's own network on real images; at this radius they fall early, which keeps it to a minute."""
    script, output = root / "benchmarks" / "autoattack_equivalence.py", tmp_path / "verdicts.csv"
    arguments = ["--data-dir", cifar10_folder, "--images", 5, "--batch-size", 4, "--epsilon", 0.01, "--output", output]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0 and "0 of 5 verdicts differ" in done.stdout, done.stdout + done.stderr
    labels = ["cat", "ship", "ship", "airplane", "frog"]
    rows = [f"{i},{label},apgd-ce,apgd-ce" for i, label in enumerate(labels)]
    assert output.read_text().splitlines()[1:] == rows


# ``ltbench`` under a protocol with AutoAttack in small batches. It says when it begins to attack. Its first argument,
# if above 0, is the save of the evaluation's state in which it kills itself: the file is written, but not yet named.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from ltrobust_bench.plan import task
from ltrobust_bench.verbs import evaluations
from ltrobust_bench.cli.main import main
from ltrobust_bench.protocol import load_protocol

digits = load_protocol("digits-v0")
short = {"steps": 20, "queries": 500}
attacks = [a.model_copy(update=short) if a.kind == "autoattack" else a for a in digits.evaluation.attacks]
suite = digits.evaluation.model_copy(update={"batch_size": 5, "attacks": attacks})
task.protocol_for = lambda dataset, name=None: digits.model_copy(update={"evaluation": suite})

evaluate, rename, saves = evaluations.evaluate_images, Path.replace, int(sys.argv[1])

def announced(*given, **named):
    print("attacking", flush=True)
    return evaluate(*given, **named)

def renamed(self, target):
    global saves
    saves -= target.name == "evaluation.npz"
    if saves == 0 and target.name == "evaluation.npz":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)

evaluations.evaluate_images, Path.replace = announced, renamed
sys.exit(main(sys.argv[2:]))
"""


def program(*arguments, dies_in_save=0):
    command = [sys.executable, "-c", PROGRAM, str(dies_in_save), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(*arguments):
    process = program(*arguments)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def passed(folder):
    """Images passed forward by what the state in a run folder keeps; it must be readable."""
    path = folder / "evaluation.npz"
    if not path.exists():
        return 0
    with np.load(path, allow_pickle=False) as state:
        return json.loads(str(state["meta"]))["forwards"]


def test_evaluation_killed_at_twenty_random_moments_ends_with_the_same_result(tmp_path, monkeypatch):
    """SIGKILL of the real program while it attacks, and inside its saves; each time the same command again."""
    monkeypatch.chdir(tmp_path)
    finished("train", "--method", "at", "--dataset", "digits-lt", "--epochs", 30, "--limit-test", 60, "--threads", 1,
             "--runs-dir", tmp_path / "whole")  # fmt: skip
    (whole,) = (tmp_path / "whole").iterdir()
    killed = tmp_path / "killed" / whole.name
    shutil.copytree(whole, killed)
    files = {path.name for path in killed.iterdir()}
    finished("eval", whole, "--threads", 1)
    expected = read_record(whole / "record.json")
    assert expected.result.broken_by is not None

    moments, kills, places = random.Random(0), 0, [0]
    for _ in range(20):
        process = program("eval", killed, "--threads", 1)
        assert process.stdout is not None and any("attacking" in line for line in process.stdout)
        left = 1 - places[-1] / expected.cost.evaluation.forwards
        time.sleep(moments.uniform(0, left * expected.cost.evaluation.seconds / 8))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        places.append(passed(killed))
    for save in (1, 2):
        process = program("eval", killed, "--threads", 1, dies_in_save=save)
        process.communicate()
        assert process.returncode == -9
        assert list(killed.glob(".evaluation.npz.*.tmp"))
        places.append(passed(killed))
    # Every kill was in the middle, and the evaluation got on: what a state kept was never lost.
    assert kills == 20
    assert places == sorted(places) and len(set(places)) >= 8 and places[-1] < expected.cost.evaluation.forwards

    finished("eval", killed, "--threads", 1)
    record = read_record(killed / "record.json")
    assert record.result == expected.result and record.reliability == expected.reliability
    # No batch counted twice, none left out: only the batch in hand at a kill was repeated.
    assert record.cost.evaluation.forwards == expected.cost.evaluation.forwards
    assert record.cost.evaluation.backwards == expected.cost.evaluation.backwards
    assert {path.name for path in killed.iterdir()} == files | {"record.json"}


@pytest.fixture
def clone(root, tmp_path):
    """A fresh clone that shares this environment, so that ``make`` has nothing to install."""
    subprocess.run(["git", "clone", "--quiet", root, tmp_path / "clone"], check=True)
    (tmp_path / "clone" / ".venv").symlink_to(root / ".venv")
    os.utime(tmp_path / "clone" / "pyproject.toml", (0, 0))
    return tmp_path / "clone"


def test_demo(clone):
    """The newcomer's first command."""
    done = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((clone / "demo").glob("runs/*/record.json"))) == 2


def test_make_lite(clone, cifar10_folder):
    """The lite board's command on a few real images: the data are there, trained, attacked, and a row on a board."""
    few = "ARGS=--limit-train 300 --limit-test 20 --epochs 1"
    command = ["make", "lite", "METHOD=at", few, f"LTBENCH_DATA={cifar10_folder}"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    committed, reduced, _ = " ".join(done.stdout.split()).partition("reduced runs: 300 training images")
    assert reduced and " at-bsl " in committed, "a row beside the committed board"
    (record,) = (clone / "lite" / "runs").glob("*/record.json")
    assert read_record(record).run.protocol == "ltr-linf-lite-v1"
    assert (clone / "lite" / "results" / "leaderboard.md").exists()


def test_real_cifar10_with_the_main_protocol(cifar10_folder, tmp_path):
    """ResNet-18, ltr-linf-v1 and its whole suite on a few real images."""
    record = verbs.run(
        "reat", "cifar10-lt", epochs=1, limit_train=100, limit_test=20, data_dir=cifar10_folder,
        runs_dir=tmp_path / "runs", results_dir=None, device="cpu",
    )  # fmt: skip
    assert record.status.reduced and record.run.model == "resnet18" and record.run.epsilon == 8 / 255
    assert record.attacks[-1] == "autoattack"
    (path,) = tmp_path.glob("runs/*/record.json")
    assert read_record(path) == record


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_step_is_the_plain_one(precision):
    """torch.compile as it is installed here, on the CPU: the same loss as the step it compiles."""
    from ltrobust_bench.compute.forwards import compile_problem

    problem = compile_problem(torch.device("cpu"))
    if problem:
        pytest.skip(problem)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    try:
        from train import steps_of
    finally:
        sys.path.pop(0)
    names = {"fp32": ["folded", "folded+compile"], "bf16": ["bf16", "bf16+compile"]}[precision]
    steps = steps_of("reat", "small", torch.device("cpu"), 32, 3, names)
    plain, compiled = ([steps[name]() for _ in range(3)] for name in names)
    assert compiled == pytest.approx(plain, rel={"fp32": 1e-3, "bf16": 0.05}[precision])
