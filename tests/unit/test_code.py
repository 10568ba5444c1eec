"""Code is part of a run's identity in time: what counts as an edit, what is refused after one, what a record says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.plan import code as module
from ltrobust_bench.plan.code import Code, code_of, package_sha256, worst
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import finish_run, load_model, run_plan

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
A, B = "a" * 40, "b" * 40


class Notes(Silent):
    """Keeps what is said, and interrupts after a number of steps."""

    def __init__(self, steps=10**9, attack=""):
        self.left, self.attack, self.said = steps, attack, []

    def note(self, text):
        self.said.append(text)

    def start(self, label, total, done=0):
        if label == self.attack:
            raise KeyboardInterrupt

    def advance(self, units=1, detail=None):
        self.left -= units
        if self.left < 0:
            raise KeyboardInterrupt


# --- what counts ----------------------------------------------------------------------------------------------


def git(place, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", place, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout that takes the place of the real one."""
    for path in ("ltrobust_bench/api.py", "baselines/mine/method.py", "baselines/other/method.py", "pyproject.toml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("1\n")
    (tmp_path / ".gitignore").write_text("build/\n__pycache__/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "start")
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "ltrobust_bench")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "method", "dirty"),
    [
        ("notes.txt", "mine", False),
        ("baselines/other/method.py", "mine", False),
        ("baselines/new/method.py", "mine", False),
        ("ltrobust_bench/__pycache__/api.pyc", "mine", False),
        ("baselines/mine/method.py", "mine", True),
        ("baselines/new/method.py", "new", True),
        ("baselines/build/method.py", "build", True),  # though git ignores it
        ("ltrobust_bench/api.py", "mine", True),
        ("ltrobust_bench/extra.py", "mine", True),
    ],
)
def test_dirty_is_the_package_or_the_method_that_is_run(checkout, path, method, dirty):
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text("2\n")
    commit, found = module._in_git.__wrapped__((checkout / "baselines" / method,))
    assert len(commit) == 40 and found is dirty


def test_an_installed_package_knows_no_commit(checkout):
    (checkout / "pyproject.toml").unlink()
    assert module._in_git.__wrapped__((checkout / "baselines" / "mine",)) == (None, None)


def test_the_digest_is_of_what_computes_and_attacks_are_no_part_of_training():
    run = make_plan("at", "digits-lt", plugins=["awp"]).run
    training, evaluation = (code_of(run, work) for work in ("training", "evaluation"))
    assert training.method_sha256 == evaluation.method_sha256
    assert training.package_sha256 == package_sha256("training") != evaluation.package_sha256
    assert training.method_sha256 != code_of(make_plan("at", "digits-lt").run, "training").method_sha256
    rooms = {path.name for path in module.PACKAGE.iterdir() if path.suffix != ".pyc"}
    assert set(module.AROUND) <= rooms, "a room that was renamed would count"


def test_dirty_once_is_dirty_and_what_is_not_known_is_not_clean():
    def said(dirty, work="training"):
        return Code(
            work=work, package_version="1.0", commit=A, dirty=dirty, method_sha256="0" * 64, package_sha256="0" * 64
        )

    evaluation = said(False, "evaluation")
    assert worst([said(False), evaluation]) is False
    assert worst([said(True), said(None), evaluation]) is True
    assert worst([said(None), evaluation]) is None and worst([evaluation]) is None


# --- what follows, with code that is said to be another ---------------------------------------------------------


@pytest.fixture
def code(monkeypatch):
    """What this process is told about its code; ``methods``: digests by folder, where they differ."""
    said = SimpleNamespace(commit=A, dirty=False, methods={}, training="0" * 64, evaluation="1" * 64)

    def digest(folder, patterns, left_out=frozenset()):
        if "card.toml" in patterns:
            return said.methods.get(folder.name, "2" * 64)
        return said.training if "evaluation" in left_out else said.evaluation

    monkeypatch.setattr(module, "_in_git", lambda folders: (said.commit, said.dirty))
    monkeypatch.setattr(module, "_digest", digest)
    return said


def plan(method="at", **request):
    return make_plan(method, "digits-lt", protocol="smoke", epochs=2, limit_train=100, limit_test=50, **request)


def folder_of(p, root):
    return root / p.run.folder_name()


def whole_run(p, root, **how):
    how = {"results_dir": None, "device": CPU, "progress": Silent(), **how}
    return run_plan(p, runs_dir=root, **how)


def test_a_record_carries_the_worst_of_all_sessions_and_lists_their_commits(code, tmp_path):
    p = plan()
    code.dirty = True
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, folder_of(p, tmp_path), CPU, Notes(p.steps_per_epoch + 1))
    code.dirty, code.commit = False, B
    record = whole_run(p, tmp_path)
    env = record.environment
    assert (env.git_commit, env.git_dirty) == (B, True)
    assert [(c.work, c.commit, c.dirty) for c in env.code] == [
        ("training", A, True),
        ("training", B, False),
        ("evaluation", B, False),
    ]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        ({"methods": {"at": "9" * 64}}, "folder of the method or a plug-in [0-9a-f]{8}, now [0-9a-f]{8} "),
        ({"training": "9" * 64}, "package 00000000, now 99999999 "),
    ],
)
def test_training_is_not_resumed_or_reused_across_an_edit(code, tmp_path, edit, what):
    p, before = plan(), vars(code).copy()
    folder = folder_of(p, tmp_path)
    for stopped in (True, False):
        vars(code).update(before)
        if stopped:
            with pytest.raises(KeyboardInterrupt):
                train_plan(p, folder, CPU, Notes(p.steps_per_epoch + 1))
        else:
            first = train_plan(p, folder, CPU)
        vars(code).update(edit)
        with pytest.raises(
            CheckpointError, match=what + r"\(then commit aaaaaaa\).*--method at --fresh.*`version`"
        ) as said:
            train_plan(p, folder, CPU)
        assert "\n" not in str(said.value) and str(folder) in str(said.value)
    (folder / "mine.txt").write_text("")
    again = train_plan(p, folder, CPU, fresh=True)
    assert again.forwards_here == first.cost.forwards and not (folder / "mine.txt").exists()
    assert [c.method_sha256 for c in again.code] == [code_of(p.run, "training").method_sha256]


def test_an_edit_of_attacks_leaves_training_alone_and_asks_for_another_evaluation(code, tmp_path):
    p = plan()
    whole_run(p, tmp_path)
    code.evaluation = "9" * 64
    with pytest.raises(CheckpointError, match=r"record.json was made by other code: package 11111111, .*--again"):
        whole_run(p, tmp_path)
    loaded = load_model(folder_of(p, tmp_path), device="cpu")
    record = finish_run(loaded, p.task, folder_of(p, tmp_path), None, Silent(), again=True)
    assert [c.package_sha256[0] for c in record.environment.code] == ["0", "9"]
    assert whole_run(p, tmp_path) == record


def test_an_evaluation_of_other_code_is_begun_again_and_says_so(code, tmp_path):
    p = plan()
    for edited, expected in ((False, ["A", "B"]), (True, ["B"])):
        root = tmp_path / str(edited)
        code.commit, code.evaluation = A, "1" * 64
        with pytest.raises(KeyboardInterrupt):
            whole_run(p, root, progress=Notes(attack="pgd-5"))
        code.commit, code.evaluation = B, "9" * 64 if edited else "1" * 64
        notes = Notes()
        record = whole_run(p, root, progress=notes)
        assert any("begun again" in line for line in notes.said) is edited
        seen = [c.commit[0].upper() for c in record.environment.code if c.work == "evaluation"]
        assert seen == expected


def test_the_code_of_a_base_counts(code, tmp_path):
    p = plan("tau-norm")
    code.dirty = True
    train_plan(p.base, folder_of(p.base, tmp_path), CPU)
    code.dirty = False
    record = whole_run(p, tmp_path)
    assert record.environment.git_dirty is True
    assert [(c.work, c.dirty) for c in record.environment.code] == [
        ("base", True),
        ("training", False),
        ("evaluation", False),
    ]
    code.methods = {"at": "9" * 64}
    with pytest.raises(CheckpointError, match="the run it builds on was trained by other code"):
        train_plan(p, folder_of(p, tmp_path), CPU)
    (folder_of(p, tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="at-digits-lt.*: it was trained by other code.*--method at --fresh"):
        train_plan(p, folder_of(p, tmp_path), CPU)


def test_what_was_trained_before_code_was_recorded_is_used_and_never_called_clean(code, tmp_path):
    p = plan("tau-norm")
    train_plan(p, folder_of(p, tmp_path), CPU)
    for each in (p.base, p):
        path = folder_of(each, tmp_path) / "model.safetensors"
        weights, description = ckpt.read_model(path)
        del description["code"]
        ckpt.save_model(path, weights, description)
    notes = Notes()
    record = whole_run(p, tmp_path, progress=notes)
    assert any("trained before code was recorded" in line for line in notes.said)
    assert record.environment.git_dirty is None and [c.work for c in record.environment.code] == ["evaluation"]
    with pytest.raises(CheckpointError, match="was trained before code was recorded; train it again with --method at"):
        train_plan(p, folder_of(p, tmp_path), CPU, fresh=True)


def test_a_folder_that_is_emptied_loses_what_claims_to_be_finished_first(code, tmp_path, monkeypatch):
    """However early the process is killed, nothing of the old run is taken for the new one's."""
    p = plan()
    whole_run(p, tmp_path)
    folder, gone = folder_of(p, tmp_path), []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: gone.append(path.name))
    ckpt.remove_run(folder)
    assert gone[:3] == ["record.json", "evaluation.npz", "model.safetensors"] and ".lock" not in gone


# --- the real program in a real checkout --------------------------------------------------------------------------


@pytest.mark.slow
def test_train_with_an_edited_method_restore_it_and_evaluate(tmp_path):
    """The case that slipped through: the record said clean."""
    place = tmp_path / "checkout"
    for name in ("ltrobust_bench", "baselines"):
        shutil.copytree(ROOT / name, place / name)
    shutil.copy(ROOT / "pyproject.toml", place)
    (place / ".gitignore").write_text("__pycache__/\n")
    git(place, "init", "--quiet")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "start")

    def ltbench(*arguments):
        program = [sys.executable, "-c", "from ltrobust_bench.cli.main import main; main()", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(place)}
        return subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    small = ["--method", "at", "--dataset", "digits-lt", "--protocol", "smoke", "--device", "cpu"]
    small += ["--epochs", 1, "--limit-train", 50, "--limit-test", 50]
    method = place / "baselines" / "at" / "method.py"
    honest = method.read_text()
    method.write_text(f"{honest}# edited\n")
    trained = ltbench("train", *small)
    assert trained.returncode == 0, trained.stderr
    method.write_text(honest)
    (folder,) = tmp_path.glob("runs/*")
    refused = ltbench("run", *small)
    (line,) = refused.stderr.strip().splitlines()
    assert refused.returncode == 2 and folder.name in line and "uncommitted changes" in line and "--fresh" in line
    assert ltbench("eval", folder, "--device", "cpu").returncode == 0
    env = json.loads((folder / "record.json").read_text())["environment"]
    assert env["git_dirty"] is True and [c["dirty"] for c in env["code"]] == [True, False]
    assert len({c["method_sha256"] for c in env["code"]}) == 2
    done = ltbench("run", *small, "--fresh")
    assert done.returncode == 0, done.stderr
    env = json.loads((folder / "record.json").read_text())["environment"]
    assert env["git_dirty"] is False and len({c["method_sha256"] for c in env["code"]}) == 1
