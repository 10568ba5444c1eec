"""The log of a run: what it tells of all sessions, and that neither a kill nor two writers damage it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from stopping import StopAfter

from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Ended, Epoch, Named, Noted, Several, Silent
from ltrobust_bench.tracking.runlog import RunLog, logged, read_log
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import run_plan

CPU = torch.device("cpu")


def smoke(method="at", **request):
    return make_plan(method, "digits-lt", **{"protocol": "smoke", "limit_train": 100, "limit_test": 50, **request})


def events(folder):
    return [line["event"] for line in read_log(folder)]


def test_the_log_tells_of_every_session_from_start_to_end(tmp_path):
    p = smoke(epochs=3)
    folder = tmp_path / p.run.folder_name()
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, folder, CPU, StopAfter(p.steps_per_epoch + 1))
    assert events(folder) == ["started", "epoch", "saved", "failed"]
    assert read_log(folder)[-1]["reason"] == "interrupted"
    run_plan(p, runs_dir=tmp_path, results_dir=None, device=CPU, progress=Silent())
    told = [line for line in read_log(folder) if line["event"] != "noted"][4:]
    names = [line["event"] for line in told]
    assert names[:7] == ["started", "resumed", "epoch", "saved", "epoch", "saved", "ended"]
    assert names[7:] == ["started", "attacked", "attacked", "attacked", "ended"]
    assert [line["attack"] for line in told if line["event"] == "attacked"] == ["clean", "fgsm", "pgd-5"]
    assert all(line["left"] <= line["images"] <= 50 for line in told if line["event"] == "attacked")
    assert told[1]["after"] == "epoch 1 of 3"
    start = told[0]
    assert start["key"] == p.run.key() and start["run"] == folder.name and start["threads"] == torch.get_num_threads()
    assert start["code"]["package_sha256"] and start["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len({line["session"] for line in read_log(folder)}) == 3
    times = [datetime.fromisoformat(line["time"]) for line in read_log(folder)]
    assert times == sorted(times) and all(time.utcoffset().total_seconds() == 0 for time in times)


def test_epochs_are_the_rows_of_training_csv(tmp_path):
    p = smoke(epochs=2)
    train_plan(p, tmp_path, CPU)
    with (tmp_path / "training.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    logged_rows = [line for line in read_log(tmp_path) if line["event"] == "epoch"]
    assert len(rows) == len(logged_rows) == 2
    for row, line in zip(rows, logged_rows, strict=True):
        assert {name: float(value) for name, value in row.items()} == {name: line[name] for name in row}
        assert line["seconds"] > 0


def test_a_base_has_its_own_log(tmp_path):
    p = smoke("tau-norm")
    folder, base = tmp_path / p.run.folder_name(), tmp_path / p.base.run.folder_name()
    train_plan(p, folder, CPU)
    assert {line["method"] for line in read_log(base) if line["event"] == "started"} == {"at"}
    assert {line["method"] for line in read_log(folder) if line["event"] == "started"} == {"tau-norm"}
    assert "epoch" in events(base) and events(folder) == ["started", "ended"]


def test_a_half_line_is_skipped_and_spoils_no_other(tmp_path):
    RunLog(tmp_path / "log.jsonl").note("before")
    whole = (tmp_path / "log.jsonl").read_bytes()
    for kept in range(1, len(whole)):
        (tmp_path / "log.jsonl").write_bytes(whole + whole[:kept])
        # Only the line's end can be missing from what can be read.
        assert [line["text"] for line in read_log(tmp_path)] == ["before"] * (2 if kept == len(whole) - 1 else 1)
        RunLog(tmp_path / "log.jsonl").note("after, ü")
        assert [line["text"] for line in read_log(tmp_path)][-1] == "after, ü"
    (tmp_path / "log.jsonl").write_bytes(b'\xff\x00\n[1]\n{"no": 1}\n' + whole)
    assert events(tmp_path) == ["noted"]


def test_writers_at_once_leave_whole_lines(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ltrobust_bench.tracking.runlog import RunLog\n"
        "log = RunLog(Path(sys.argv[1]))\n"
        "for i in range(300): log.note('x' * 500 + str(i))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log.jsonl")]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = read_log(tmp_path)
    assert len(lines) == 600
    for session in {line["session"] for line in lines}:
        own = [line["text"].lstrip("x") for line in lines if line["session"] == session]
        assert own == [str(i) for i in range(300)]


def test_lines_are_json_even_where_numbers_are_not(tmp_path):
    RunLog(tmp_path / "log.jsonl").tell(Epoch({"epoch": 1, "loss": float("nan"), "lr": float("inf")}, 0.12345))
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (found["loss"], found["lr"], found["seconds"]) == (None, None, 0.123)


def test_an_error_is_the_last_line_and_goes_on_upwards(tmp_path):
    with pytest.raises(ValueError, match="two"), logged(tmp_path, Silent()) as told:
        told.note("so far")
        raise ValueError("one\n  two")
    assert [(line["event"], line.get("text") or line["reason"]) for line in read_log(tmp_path)] == [
        ("noted", "so far"),
        ("failed", "one two"),
    ]
    assert read_log(tmp_path / "nowhere") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_names_the_log_and_hides_no_error(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*log\.jsonl'"):
        RunLog(tmp_path / "log.jsonl").note("lost")
    with pytest.raises(ValueError, match="the cause"), logged(tmp_path, Silent()):
        raise ValueError("the cause")


def test_several_hear_the_same_and_one_that_is_shown_is_enough():
    class Heard(Silent):
        def __init__(self):
            self.heard = []

        def note(self, text):
            self.heard.append(text)

        def tell(self, event):
            self.heard.append(event)

    class Shown(Heard):
        shown = True

    first, second = Heard(), Shown()
    several = Several([first, second])
    several.note("a")
    several.tell(Ended("training", 1.0))
    assert first.heard == second.heard == ["a", Ended("training", 1.0)]
    assert several.shown and not Several([first, Named(second, "part")]).shown
    assert str(Noted("a line")) == "a line" and Ended("training", 1.0).name == "ended"
