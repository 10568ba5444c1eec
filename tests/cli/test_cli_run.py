"""``ltbench run``: plans, runs, reuses, files, resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from command_line import FAST, call

from ltrobust_bench.cli.main import main
from ltrobust_bench.records.io import read_record

SMALL = ["run", "--method", "reat", "--dataset", "digits-lt", *FAST]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dry_run_says_what_it_would_do_and_does_nothing(capsys, here):
    code, out, _ = call(capsys, *SMALL[:5], "--dry-run")
    assert code == 0
    for words in (
        "REAT (reat) on digits-lt",
        "protocol digits-v0",
        "417 training images",
        "420 steps",
        "cost:",
        "time on",
    ):
        assert words in " ".join(out.split())
    assert list(here.iterdir()) == []


def test_a_warm_up_that_is_most_of_a_shortened_run_is_said(capsys):
    for epochs, said in ((3, True), (4, False)):
        terms = ["--set", "lr_schedule=cosine", "--set", "schedule.warmup_epochs=2", "--epochs", epochs]
        code, out, _ = call(capsys, *SMALL[:5], *FAST, *terms, "--dry-run")
        assert code == 0 and ("the rate only grows in 2 of 3 epochs: --set schedule.warmup_epochs=0" in out) == said


def test_reduced_run_writes_its_record_but_files_none(capsys, here):
    code, out, _ = call(capsys, *SMALL, "--limit-train", 50, "--limit-test", 30, "--epochs", 1)
    assert code == 0
    (path,) = here.glob("runs/*/record.json")
    record = read_record(path)
    assert record.status.reduced and record.run.limit_train == 50 and record.run.epochs == 1
    assert record.run.train_counts == [15, 10, 7, 5, 3, 2, 1, 1, 1, 1] and record.run.test_counts == [3] * 10
    assert not list(here.glob("results/records/**/*.json"))
    assert "REDUCED" in out and out.index("no board accepts its record") < out.index("clean accuracy")
    assert out.count("IR 20 asked, 15 left") == 2
    assert "filed: " not in out.replace("not filed", "") and "not filed, no board accepts this record: " in out
    assert json.loads((path.parent / "plan.json").read_text())["method"] == "reat"


def test_full_run_is_filed_reused_and_reproduced_bit_for_bit(capsys, here):
    from ltrobust_bench.protocol import load_protocol

    short = [*SMALL[:5], "--device", "cpu"]
    digits = load_protocol("digits-v0")
    brief = digits.model_copy(
        update={
            "training": digits.training.model_copy(update={"epochs": 1}),
            "evaluation": digits.evaluation.model_copy(update={"attacks": digits.evaluation.attacks[:1]}),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ltrobust_bench.plan.task.protocol_for", lambda dataset, name: brief)
        patch.setattr("ltrobust_bench.plan.code._in_git", lambda folders: ("a" * 40, False))
        code, out, _ = call(capsys, *short)
        assert code == 0 and "filed: " in out and "already" not in out and "no board" not in out
        (filed,) = here.glob("results/records/digits-v0/digits-lt-ir20/reat/small-s0-*.json")
        (own,) = here.glob("runs/*/record.json")
        assert filed.read_bytes() == own.read_bytes()
        code, out, _ = call(capsys, *short)
        assert code == 0 and "already finished" in out
        before = filed.read_bytes()
        code, out, _ = call(capsys, *short, "--runs-dir", "elsewhere")
        assert code == 0 and "already filed: " in out
        (again,) = here.glob("elsewhere/*/record.json")
        assert read_record(again).result == read_record(filed).result
        assert filed.read_bytes() == before
        patch.setattr("ltrobust_bench.plan.code._in_git", lambda folders: ("a" * 40, True))
        code, out, _ = call(capsys, *short, "--seed", 1)
        assert code == 0 and out.index("commit ltrobust_bench/ and the method's folder") < out.index("clean accuracy")
        assert "not filed" in out and list(here.glob("results/records/**/*.json")) == [filed]


def test_several_methods_and_seeds_in_one_command(capsys, here):
    arguments = [*SMALL, "--method", "at", "--seed", 0, "--seed", 1, "--limit-train", 50, "--epochs", 1]
    code, _, _ = call(capsys, *arguments)
    assert code == 0
    names = sorted(p.parent.name.rsplit("-", 1)[0] for p in here.glob("runs/*/record.json"))
    assert names == [f"{m}-digits-lt-ir20-small-s{s}" for m in ("at", "reat") for s in (0, 1)]


def test_settings_reach_the_run_and_its_key(capsys, here):
    for setting in ("tail=off", "attack.steps=3"):
        code, _, _ = call(capsys, *SMALL, "--limit-train", 50, "--epochs", 1, "--set", setting)
        assert code == 0
    records = [read_record(p) for p in here.glob("runs/*/record.json")]
    assert {(r.run.options["tail"], r.run.recipe.attack.steps, r.status.off_recipe) for r in records} == {
        ("off", 2, False),
        ("official", 3, True),
    }
    assert len({r.run.key() for r in records}) == 2


def test_another_optimiser_trains_and_its_record_is_valid_and_off_recipe(capsys, here):
    settings = [a for s in ("optimizer=adamw", "lr=0.001", "lr_schedule=cosine") for a in ("--set", s)]
    code, _, _ = call(capsys, "run", "--method", "at", "--dataset", "digits-lt", *FAST, *settings)
    assert code == 0
    (path,) = here.glob("runs/at-digits-lt-*/record.json")
    record = read_record(path)
    assert record.run.overrides == {"optimizer": "adamw", "lr": 0.001, "lr_schedule": "cosine"}
    assert record.status.off_recipe
    assert call(capsys, "record", "validate", path)[0] == 0
    reproduced = record.run.recipe.model_dump(mode="json")
    assert reproduced["optimizer"]["kind"] == "adamw" and reproduced["schedule"]["kind"] == "cosine"


def test_policies_of_computing_reach_the_run_and_its_key(capsys, here):
    small = [*SMALL, "--limit-train", 50, "--epochs", 1]
    for options in ([], ["--no-compile", "--precision", "fp32"], ["--crafting", "folded"], ["--precision", "bf16"]):
        code, out, _ = call(capsys, *small, *options)
        assert code == 0 and ("computed by: " in out) == (options[:1] in (["--crafting"], ["--precision"]))
    records = [read_record(p) for p in here.glob("runs/*/record.json")]
    assert {(r.run.policy.crafting, r.run.policy.memory_format, r.run.recipe.precision) for r in records} == {
        ("network", "contiguous", "fp32"),
        ("folded", "channels_last", "fp32"),
        ("network", "channels_last", "bf16"),
    }
    assert len({r.run.key() for r in records}) == 3


def test_plugins_apply_in_their_declared_order_whatever_is_typed(capsys, here):
    small = ["run", "--method", "at-bsl", "--dataset", "digits-lt", *FAST, "--limit-train", 50, "--epochs", 2]
    for order in (["awp", "robustlt"], ["robustlt", "awp"]):
        wrapped = [a for name in order for a in ("--plugin", name)]
        code, out, _ = call(capsys, *small, *wrapped, "--set", "attack.steps=3", "--set", "awp.gamma=0.02")
        assert code == 0
    (path,) = here.glob("runs/at-bsl+robustlt+awp-digits-lt-*/record.json")
    record = read_record(path)
    assert record.run.plugins == ["robustlt", "awp"] and record.run.options["awp.gamma"] == 0.02
    assert record.run.recipe.attack.steps == 3 and "already finished" in out
    # AWP costs one forward and backward more than the 3 attack steps and the outer loss.
    assert record.cost.training.forwards == record.cost.training.backwards == 2 * 46 * 5


def test_real_cifar10_reduced_run(capsys, here, cifar10_folder):
    arguments = ["--limit-train", 60, "--limit-test", 20, "--epochs", 1, "--data-dir", cifar10_folder]
    code, out, _ = call(capsys, "run", "--method", "robal", "--dataset", "cifar10-lt", *FAST, *arguments)
    assert code == 0
    (path,) = here.glob("runs/robal-cifar10-lt-ir50-small-s0-*/record.json")
    assert read_record(path).run.epsilon == 8 / 255


def test_real_cifar100_reduced_run(capsys, here, cifar100_folder):
    arguments = ["--limit-train", 400, "--limit-test", 100, "--epochs", 1, "--data-dir", cifar100_folder]
    code, _, _ = call(capsys, "run", "--method", "reat", "--dataset", "cifar100-lt", *FAST, *arguments)
    assert code == 0
    (path,) = here.glob("runs/reat-cifar100-lt-ir*-small-s0-*/record.json")
    run = read_record(path).run
    assert run.epsilon == 8 / 255 and len(run.train_counts) == 100 and run.test_counts == [1] * 100


def program(*arguments, cwd):
    command = [sys.executable, "-c", "from ltrobust_bench.cli.main import main; main()", *map(str, arguments)]
    # A background job's children inherit an ignored SIGINT; a person's terminal does not.
    attended = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=attended
    )


BRIEF = [*SMALL, "--epochs", 6, "--limit-test", 20, "--threads", 1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The record of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*map(str, BRIEF), "--runs-dir", str(folder)]) == 0
    (path,) = folder.glob("*/record.json")
    return read_record(path)


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, *(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGKILL, signal.SIGINT))]
)
def test_stopped_from_outside_and_continued_equals_uninterrupted(here, uninterrupted, how):
    """The real program, stopped while training; the same command ends with the same result."""
    arguments = [*BRIEF, "--runs-dir", "again"]
    stopped = program(*arguments, cwd=here)
    deadline = time.monotonic() + 60
    while not list(here.glob("again/*/checkpoint-*")):
        assert time.monotonic() < deadline and stopped.poll() is None
        time.sleep(0.005)
    for _ in range(5):  # an impatient person
        stopped.send_signal(how)
        time.sleep(0.002)
    _, err = stopped.communicate(timeout=60)
    if how != signal.SIGKILL:
        assert stopped.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[how]
        assert "the same command goes on" in err and "Traceback" not in err
    assert not list(here.glob("again/*/record.json"))
    continued = program(*arguments, cwd=here)
    out, _ = continued.communicate(timeout=120)
    assert continued.returncode == 0 and "going on after epoch" in out
    (second,) = here.glob("again/*/record.json")
    assert read_record(second).result == uninterrupted.result
    assert read_record(second).cost.training.forwards == uninterrupted.cost.training.forwards
