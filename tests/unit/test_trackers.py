"""TensorBoard, Weights & Biases and log files get what happened, and stop nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Epoch, Warned
from ltrobust_bench.tracking.logfile import LogFile
from ltrobust_bench.tracking.runlog import read_log
from ltrobust_bench.tracking.trackers import TensorBoard, Tracker, WeightsAndBiases
from ltrobust_bench.training.checkpoint import read_model, weights_sha256
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import run_plan

CPU = torch.device("cpu")


def plan(method, **request):
    return make_plan(method, "digits-lt", protocol="smoke", limit_train=100, limit_test=50, **request)


def run(runs_dir, progress):
    p = plan("at")
    return p.run.folder_name(), run_plan(p, runs_dir=runs_dir, results_dir=None, device=CPU, progress=progress)


def digest(result):
    return weights_sha256(read_model(result.model_path)[0])


@pytest.fixture
def wandb(monkeypatch):
    """A Weights & Biases that keeps what it is given."""
    module, runs = ModuleType("wandb"), []

    class Run(SimpleNamespace):
        def log(self, values, step):
            self.history.append((step, values))

        def finish(self, exit_code):
            self.exit_code = exit_code

    def init(**about):
        runs.append(Run(about=about, history=[], summary={}, exit_code=None, offline=True, dir="wandb/run/files"))
        return runs[-1]

    module.init, module.Settings, module.runs = init, dict, runs
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_weights_and_biases_gets_one_offline_run_for_training_and_evaluation(tmp_path, wandb, monkeypatch):
    said = []
    with WeightsAndBiases(pytest.fail, said.append) as tracker:
        name, record = run(tmp_path, tracker)
        monkeypatch.setenv("WANDB_MODE", "online")
        train_plan(plan("at", seed=1), tmp_path / "seed1", CPU, tracker)
    first, second = wandb.runs
    assert first.about["mode"] == "offline" and second.about["mode"] == "online"
    assert first.about["id"] == record.run.key()[:16] != second.about["id"] and first.about["name"] == name
    assert first.about["config"]["method"] == "at" and second.about["config"]["seed"] == 1
    assert [step for step, _ in first.history] == [1, 2]
    assert {"train/loss", "train/lr", "train/train_robust"} <= first.history[-1][1].keys()
    assert first.summary["accuracy/clean"] == record.bits("clean").mean()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert said == ["`wandb sync wandb/run` uploads this run to Weights & Biases"] * 2


def test_weights_and_biases_marks_a_run_that_fails(wandb):
    with pytest.raises(KeyboardInterrupt), WeightsAndBiases(pytest.fail, print) as tracker:
        tracker.tell(Epoch({"epoch": 1, "loss": 2.0}, 1.0))
        raise KeyboardInterrupt
    assert wandb.runs[0].exit_code == 1


def test_tensorboard_reads_back_what_the_log_holds(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard(tmp_path / "tb", pytest.fail) as tracker:
        name, record = run(tmp_path / "runs", tracker)
    found = EventAccumulator(str(tmp_path / "tb" / name)).Reload()
    losses = [line["loss"] for line in read_log(tmp_path / "runs" / name) if line["event"] == "epoch"]
    assert [scalar.step for scalar in found.Scalars("train/loss")] == [1, 2]
    assert [scalar.value for scalar in found.Scalars("train/loss")] == pytest.approx(losses)
    for attack in ("clean", "fgsm", "pgd-5"):
        assert found.Scalars(f"accuracy/{attack}")[0].value == pytest.approx(record.bits(attack).mean())


def test_a_tracker_that_fails_says_so_once_and_stops_no_run(tmp_path):
    class Broken(Tracker):
        def curve(self, epoch, values):
            raise ConnectionError("no route\nto host")

    said = []
    with Broken(said.append) as tracker:
        followed = train_plan(plan("at"), tmp_path / "followed", CPU, tracker)
    assert said == ["Broken failed and is left out from here on: no route"]
    alone = train_plan(plan("at"), tmp_path / "alone", CPU)
    assert digest(followed) == digest(alone), "who follows changes nothing"


def test_a_log_file_has_lines_with_time_and_the_error_last(tmp_path):
    path = tmp_path / "logs" / "all.log"
    with LogFile(path, period=0) as log:
        run(tmp_path, log)
    with pytest.raises(ValueError), LogFile(path) as log:
        log.tell(Warned("mind this"))
        raise ValueError("no\nmore")
    lines = path.read_text().splitlines()
    form = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR) \S.*")
    assert all(form.fullmatch(line) for line in lines)
    text = "\n".join(lines)
    for words in ("INFO training of at-digits-lt", "INFO epoch 2, ", "train at: 1/4. loss", "INFO pgd-5: "):
        assert words in text
    assert lines[-2].endswith("WARNING mind this") and lines[-1].endswith("ERROR failed: no more")


def test_a_log_file_that_cannot_be_written(tmp_path, capsys):
    with pytest.raises(UsageError, match="another --log-file"):
        LogFile(tmp_path)
    if Path("/dev/full").exists():
        with LogFile(tmp_path / "full.log") as log:
            log.handler.stream.close()
            log.handler.stream = Path("/dev/full").open("w")  # noqa: SIM115 - the handler closes it
            log.note("lost, and the run goes on")
    assert capsys.readouterr().err == ""
