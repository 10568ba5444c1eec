"""``ltbench sweep`` and ``ltbench status``: what they print, and how they leave."""

from __future__ import annotations

import json

import pytest
from command_line import call, refused

from ltrobust_bench.executors import local
from ltrobust_bench.executors.base import Job

PLAN = """
[defaults]
dataset = "digits-lt"
protocol = "smoke"
epochs = 1
limit_train = 64
limit_test = 20

[[runs]]
method = ["at", "crt"]
"""
NAMES = {"train": "model.safetensors", "evaluate": "record.json"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path


@pytest.fixture
def workers(monkeypatch):
    """Processes that leave an empty result and end with a code, by the start of the job's id; else with 0."""
    codes = {}

    def command(job):
        code = next((codes[name] for name in codes if job.id.startswith(name)), 0)
        result = f"touch {job.folder / NAMES[job.kind]}" if code == 0 else "true"
        return ["sh", "-c", f"{result}; exit {code}"]

    monkeypatch.setattr(Job, "command", command)
    monkeypatch.setattr(local, "cuda_devices", list)
    monkeypatch.setattr("ltrobust_bench.verbs.sweeping.Sweep.file_leftovers", lambda *_: None)
    monkeypatch.setattr("ltrobust_bench.verbs.sweeping.Sweep.by_other_code", lambda *_: [])
    return codes


def test_a_dry_run_prints_order_states_and_cost_and_does_nothing(here, capsys):
    code, out, _ = call(capsys, "sweep", "plan.toml", "--dry-run", "--workers", 2, "--device", "cpu")
    assert code == 0 and "jobs: 4, to be done: 4" in out
    rows = [line.split() for line in out.splitlines() if "-digits-lt-" in line]
    assert [(row[0], row[1].split("-")[0], row[1].rpartition(".")[2], row[2]) for row in rows] == [
        ("1", "at", "train", "ready"),
        ("2", "at", "evaluate", "waiting"),
        ("3", "crt", "train", "waiting"),
        ("4", "crt", "evaluate", "waiting"),
    ]
    assert "one job at a time" in out and "with 2 workers" in out
    assert [path.name for path in here.iterdir()] == ["plan.toml"]


def test_a_sweep_does_what_is_left_and_status_tells(here, workers, capsys):
    code, out, _ = call(capsys, "status", "plan.toml")
    assert code == 0 and "1 ready, 3 waiting" in out
    code, out, _ = call(capsys, "sweep", "plan.toml", "--device", "cpu", "--only", "at")
    assert code == 0 and out.strip().endswith("2 done, 0 failed, 0 left")
    code, out, _ = call(capsys, "sweep", "plan.toml", "--device", "cpu")
    assert code == 0 and "jobs: 4, to be done: 2" in out
    code, out, _ = call(capsys, "status", "plan.toml", "--json")
    told = json.loads(out)
    assert told["counts"] == {"done": 4} and {job["state"] for job in told["jobs"]} == {"done"}
    code, out, _ = call(capsys, "status", "--watch")  # ends, as all is done
    assert code == 0 and "4 done" in out


def test_records_of_other_code_are_told_of(here, workers, capsys, monkeypatch):
    for runs, words in ((["a"], "done by 1 record of other"), (["a", "b", "c"], "done by 3 records of other")):
        monkeypatch.setattr("ltrobust_bench.verbs.sweeping.Sweep.by_other_code", lambda _, runs=runs: runs)
        code, out, _ = call(capsys, "sweep", "plan.toml", "--device", "cpu")
        more = " and 2 more" if len(runs) > 1 else ""
        assert code == 0 and f"{words} code than this, which stay: a{more}\n" in out


def test_a_run_that_cannot_be_planned_is_named(here, capsys):
    (here / "plan.toml").write_text(PLAN + 'seed = 3\nsettings.tail = "off"\n')
    for verb in ("sweep", "status"):
        assert "run at on digits-lt, seed 3: unknown setting 'tail'" in refused(capsys, verb, "plan.toml")


def test_a_failed_job_leaves_with_1_and_names_its_log(here, workers, capsys):
    workers["crt"] = 1
    code, out, _ = call(capsys, "sweep", "plan.toml", "--device", "cpu", "--retry", 1)
    assert code == 1 and out.count("queued again") == 1
    (line,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert line.endswith("train.log") and "2 done, 1 failed, 1 left" in out


def test_what_does_not_fit_the_time_is_left_with_75(here, workers, capsys):
    code, out, _ = call(capsys, "sweep", "plan.toml", "--device", "cpu", "--max-hours", 1e-9)
    assert code == 75 and "0 done, 0 failed, 4 left" in out and "The same command goes on" in out


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["no.toml"], "no plan at no.toml"),
        (["plan.toml", "--executor", "lcoal"], "did you mean 'local'"),
        (["plan.toml", "--workers", "0"], "workers"),
        (["plan.toml", "--only", "zz"], "--only zz matches none"),
        (["plan.toml", "--retry", "-1"], "--retry"),
        (["plan.toml", "--runs-dir", "/proc/nothing"], "cannot write to /proc/nothing"),
    ],
)
def test_wrong_usage(here, capsys, typed, line):
    assert line in refused(capsys, "sweep", *typed, "--device", "cpu")


def test_unknown_keys_of_a_plan(here, capsys):
    (here / "plan.toml").write_text(PLAN.replace("method", "mehtod"))
    for verb in ("sweep", "status"):
        assert "unknown key of [runs] in plan.toml 'mehtod': did you mean 'method'" in refused(
            capsys, verb, "plan.toml"
        )
