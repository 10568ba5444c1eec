"""Signals from outside: what is in hand is kept, the exit code says so, nobody sees a traceback."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from command_line import FAST, call

import ltrobust_bench as lt
from ltrobust_bench import interrupt
from ltrobust_bench.cli.main import main
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.state import State
from ltrobust_bench.training.losses import LossWatch

SMALL = ["--dataset", "digits-lt", *FAST, "--epochs", 3, "--limit-train", 200, "--limit-test", 50]
KEPT = "Everything is kept: the same command goes on from here.\n"
NOT_BEGUN = "Nothing is lost but the work in hand: the same command goes on from here."


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def after(monkeypatch, owner, attribute, moment, name):
    """Have a signal sent to this process after the ``moment``-th call of a method."""
    inner, number, calls = getattr(owner, attribute), getattr(signal, name), 0

    def counted(*given, **named):
        nonlocal calls
        calls += 1
        result = inner(*given, **named)
        if calls == moment:
            os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(owner, attribute, counted)


@pytest.mark.parametrize("name", interrupt.SIGNALS)
def test_a_training_that_is_asked_to_stop_keeps_its_step_and_says_so(here, capsys, monkeypatch, name):
    after(monkeypatch, LossWatch, "add", 2, name)
    code, _, err = call(capsys, "train", "--method", "at", *SMALL)
    assert code == interrupt.REQUEUE == 75 and err == f"Stopped by {name}. {KEPT}"
    (folder,) = here.glob("runs/*")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".lock", "checkpoint-0000-000002", "log.jsonl", "plan.json")
    ]


HARD = {
    "reat": {"plugins": ["robustlt", "awp"]},
    "crt": {"plugins": ["robustlt"]},
    "dafa": {},
    "cfa": {"settings": {"average_decay": 0.5, "threshold": 0}},
    "resample": {"settings": {"augment": "randaugment", "lr_schedule": "cosine"}},
}
"""Methods that remember, in the epoch too: counts, similarities, averages, cycles of a sampler; one is of two stages,
one has draws of its own in each step."""


@pytest.mark.parametrize("method", HARD)
def test_stopped_between_any_steps_ends_as_if_it_never_was(here, monkeypatch, method):
    request = lt.Request(
        method, "digits-lt", protocol="smoke", epochs=3, limit_train=200, limit_test=50, **HARD[method]
    )
    expected = lt.run(request, runs_dir="whole", results_dir=None, device="cpu")
    moments, stops, found = random.Random(0), 0, None
    while found is None:
        with monkeypatch.context() as patch, interrupt.listening(ends=False):
            after(patch, LossWatch, "add", moments.randint(1, 7), "SIGTERM")
            after(patch, State, "save", moments.randint(1, 3), "SIGUSR1")
            try:
                found = lt.run(request, runs_dir="parts", results_dir=None, device="cpu")
            except interrupt.Stopped:
                stops += 1
                assert stops < 40
    assert stops >= 4
    assert found.result == expected.result  # the digest of the weights is in it
    assert found.cost.training.forwards == expected.cost.training.forwards
    assert found.cost.evaluation.forwards == expected.cost.evaluation.forwards
    whole, parts = (next(here.glob(f"{where}/{method}*/training.csv")).read_bytes() for where in ("whole", "parts"))
    assert whole == parts


def test_an_ignored_hangup_stays_ignored(here, capsys, monkeypatch):
    """``nohup ltbench train ...`` goes on when its terminal is closed."""
    after(monkeypatch, LossWatch, "add", 2, "SIGHUP")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert call(capsys, "train", "--method", "at", *SMALL)[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_quick_interrupts_leave_one_line(capsys, monkeypatch):
    def impatient(*_):
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGINT)

    after(monkeypatch, LossWatch, "add", 2, "SIGINT")
    monkeypatch.setattr("ltrobust_bench.progress.RichProgress.__exit__", impatient)
    code, _, err = call(capsys, "train", "--method", "at", *SMALL)
    assert code == 130
    assert err.strip() == f"Interrupted. {NOT_BEGUN}"


# Asks itself to stop while it imports torch, and once more when it is about to end.
STARTING = """
import atexit, os, signal, sys
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
class Asked:
    def find_spec(self, name, path=None, target=None):
        if name == "torch._C":
            for number in (signal.SIGTERM, signal.SIGTERM):
                os.kill(os.getpid(), number)
sys.meta_path.insert(0, Asked())
from ltrobust_bench.cli.main import main
main()
"""


def test_a_start_that_is_asked_to_stop_says_a_line():
    command = [sys.executable, "-c", STARTING, "train", "--method", "at", "--dataset", "digits-lt"]
    started = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert started.returncode == interrupt.REQUEUE
    assert (
        started.stderr
        == "Stopped by SIGTERM. Nothing is lost but the work in hand: the same command goes on from here.\n"
    )


@pytest.fixture
def listening():
    with interrupt.listening(ends=False):
        yield


def test_a_step_that_is_not_over_in_time_is_given_up(listening, monkeypatch):
    monkeypatch.setenv("LTBENCH_GRACE", "0.1")
    says = r"not over after 0.1 seconds .*since the last checkpoint"
    with pytest.raises(interrupt.Stopped, match=says), interrupt.in_steps():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # repeats add nothing
        time.sleep(5)


def test_steps_end_before_the_grace_period_does(listening):
    with pytest.raises(interrupt.Stopped, match="Everything is kept"), interrupt.in_steps():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupt.stopping() and alarm() > 0
        interrupt.stop_if_asked(kept=True)
    assert alarm() == 0


def alarm():
    """Seconds until the alarm goes off; 0: it is off."""
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_work_that_ends_after_the_signal_is_not_followed_by_more(listening):
    with pytest.raises(interrupt.Stopped), interrupt.in_steps():
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(UsageError), interrupt.in_steps():
        raise UsageError("what went wrong is still said")


def test_the_package_leaves_its_users_handlers_alone(capsys):
    before = {name: signal.getsignal(getattr(signal, name)) for name in (*interrupt.SIGNALS, "SIGINT", "SIGALRM")}
    assert main(["list", "attacks"]) == 0
    assert {name: signal.getsignal(getattr(signal, name)) for name in before} == before
