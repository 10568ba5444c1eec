"""What happens to run folders in a person's hands: shared, copied, moved, renamed, read-only, of another time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from stopping import StopAfter

import ltrobust_bench as lt
from ltrobust_bench.errors import CheckpointError, UsageError
from ltrobust_bench.training.folder import locked

REQUEST = lt.Request("reat", "digits-lt", protocol="smoke", epochs=3, limit_train=60, limit_test=20)


def train(runs_dir, request=REQUEST, **settings):
    return lt.train(request, runs_dir=runs_dir, device="cpu", **settings)


@pytest.fixture
def begun(tmp_path):
    """The folder of a run that was interrupted after two epochs of three."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "runs", progress=StopAfter(2))
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "checkpoint-0002").is_dir()
    return folder


def test_the_lock_of_a_killed_process_holds_nobody_up(begun):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(begun):
            os.write(write, b"!")
            signal.pause()
    os.read(read, 1)
    with pytest.raises(UsageError, match="another process is working in .*; wait for it"):
        train(begun.parent)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert train(begun.parent).history[-1]["epoch"] == 3


def test_a_run_goes_on_where_it_was_copied_or_moved_to(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "copied" / begun.name)
    (tmp_path / "moved").mkdir()
    shutil.move(begun, tmp_path / "moved")
    results = [train(tmp_path / where) for where in ("copied", "moved", "new")]
    weights = [lt.load_model(result.model_path).weights_sha256 for result in results]
    assert len(set(weights)) == 1
    shares = [result.forwards_here / result.cost.forwards for result in results]
    assert shares == pytest.approx([1 / 3, 1 / 3, 1])


def test_a_folder_under_another_runs_name_is_not_taken_for_that_run(begun):
    other = REQUEST.replace(seed=1)
    begun.rename(begun.parent / other.to_plan().run.folder_name())
    with pytest.raises(CheckpointError, match="belongs to another run; delete that folder"):
        train(begun.parent, other)
    assert train(begun.parent, other, fresh=True).history[-1]["epoch"] == 3


def test_a_read_only_folder_is_one_line(begun, monkeypatch):
    def refuse(*_, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(named["dir"]))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(UsageError, match="cannot write to .*: Read-only file system; name another folder"):
        train(begun.parent)


def test_a_checkpoint_of_another_layout_is_refused_in_one_line(begun):
    """Whatever an older version of the package wrote, if its code were taken for this one."""
    path = begun / "checkpoint-0002" / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["hand"], state["lowered"]
    torch.save(state, path)
    meta = json.loads((path.parent / "meta.json").read_text())
    meta["sha256"]["state.pt"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (path.parent / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="does not fit this run .*; delete that folder"):
        train(begun.parent)


def test_files_of_the_future_are_no_newer_than_they_are(begun):
    """A clock that was set back: what counts is the order of the steps, not the times of the files."""
    for path in begun.glob("checkpoint-0001/*"):
        os.utime(path, (2**32, 2**32))
    result = train(begun.parent)
    assert result.forwards_here == result.cost.forwards // 3


class Killed(BaseException):
    """Nothing of the process happens after it."""


CHANGES = [
    pytest.param(shutil, "rmtree", id="rmtree"),
    pytest.param(Path, "rename", id="rename", marks=pytest.mark.slow),
    pytest.param(Path, "replace", id="replace", marks=pytest.mark.slow),
    pytest.param(Path, "unlink", id="unlink", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("owner", "name"), CHANGES)
def test_killed_before_any_change_of_a_name_the_folder_ends_as_if_it_never_was(tmp_path, monkeypatch, owner, name):
    def ends(place):
        record = lt.run(REQUEST, runs_dir=tmp_path / place, results_dir=None, device="cpu")
        (folder,) = (tmp_path / place).iterdir()
        return record.result.digest, sorted(path.name for path in folder.iterdir())

    whole, real, killed = ends("whole"), getattr(owner, name), True
    for number in range(50):
        if not killed:
            break
        left = [number]

        def dies(*arguments, left=left, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dies)
            try:
                ends(f"parts-{number}")
                killed = False
            except Killed:
                pass
        assert ends(f"parts-{number}") == whole, number
    assert not killed
