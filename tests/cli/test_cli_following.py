"""Who follows long verbs: how much is printed, log files, and trackers that are not installed."""

from __future__ import annotations

import click
import pytest
from command_line import FAST, call, refused

from ltrobust_bench.cli.main import VERBS, ltbench

SMALL = ["run", "--method", "at", "--dataset", "digits-lt", *FAST, "--limit-train", 50, "--limit-test", 30]
SMALL += ["--epochs", 1]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_quiet_prints_results_and_warnings_verbose_every_event(capsys, here):
    _, usual, _ = call(capsys, *SMALL)
    code, quiet, err = call(capsys, *SMALL, "--seed", 1, "--quiet", "--log-file", "logs/run.log")
    assert code == 0 and err == ""
    assert "no board accepts its record" in quiet and "pgd-5" in quiet and "record: runs/" in quiet
    for words in ("protocol smoke", "cost: ", "clean accuracy", "attacking costs"):
        assert words in usual and words not in quiet
    _, verbose, _ = call(capsys, *SMALL, "--seed", 2, "-v", "--log-file", "logs/run.log")
    for words in ("training of at-digits-lt", "epoch 1, lr", "saved checkpoint-0001", "evaluation is finished"):
        assert words in " ".join(verbose.split()) and words not in usual
    log = (here / "logs" / "run.log").read_text()
    assert log.count("INFO training of at-digits-lt") == 2, "lines are added"


def test_errors_reach_the_log_file(capsys, here):
    (here / "runs").mkdir()
    call(capsys, *SMALL)
    (folder,) = here.glob("runs/at-*")
    (folder / "record.json").write_text("{")
    line = refused(capsys, *SMALL, "-q", "--log-file", "run.log")
    assert (here / "run.log").read_text().rstrip().endswith(f"ERROR failed: {line.removeprefix('Error: ')}")
    assert f'"reason": "{line.removeprefix("Error: ")}"' in (folder / "log.jsonl").read_text()


def commands():
    """Every verb and the verbs below it, by the words that are typed."""
    context = click.Context(ltbench)
    for verb in VERBS:
        found = ltbench.get_command(context, verb)
        if isinstance(found, click.Group):
            for name in found.list_commands(context):
                yield f"{verb} {name}", found.get_command(context, name)
        else:
            yield verb, found


def test_long_verbs_are_followed_alike():
    """What reports progress has all of the options; what trains or attacks for a record has curves too."""
    logs, trackers = {"log_file", "quiet", "verbose"}, {"tensorboard", "wandb"}
    has = {name: {p.name for p in command.params} & (logs | trackers) for name, command in commands()}
    followed = {name: options for name, options in has.items() if options}
    assert {n for n, options in followed.items() if options >= logs} == followed.keys()
    assert followed.keys() >= {"run", "train", "tune", "eval", "report analyse", "record verify"}
    assert {n for n, options in followed.items() if trackers <= options} >= {"run", "train", "tune", "eval"}


def test_what_cannot_be_done_is_refused_before_anything_is(capsys, here, monkeypatch):
    assert "contradict" in refused(capsys, *SMALL, "-q", "-v")
    monkeypatch.setattr("ltrobust_bench.tracking.trackers.find_spec", lambda name: None)
    for option, package in ((["--tensorboard", "tb"], "tensorboard"), (["--wandb"], "wandb")):
        line = refused(capsys, *SMALL, *option)
        assert f"pip install 'ltrobust-bench[{package}]'" in line
    assert list(here.iterdir()) == []
    assert "cannot write" in refused(capsys, *SMALL, "--log-file", here)
