"""A disk that is full: one line with the path, exit code 1, the last good state intact; with room, the same command
goes on to the same result."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager

import pytest
import torch

import ltrobust_bench as lt
from ltrobust_bench import files
from ltrobust_bench.cli.main import main
from ltrobust_bench.errors import StorageError, UsageError
from ltrobust_bench.training import checkpoint as ckpt

REQUEST = lt.Request("reat", "digits-lt", protocol="smoke", epochs=3, limit_train=60, limit_test=20)
CPU = torch.device("cpu")


def attempt(folder):
    return lt.run(REQUEST, runs_dir=folder, results_dir=folder / "results", device="cpu")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return attempt(tmp_path_factory.mktemp("whole")).result


@contextmanager
def full_at(nth, monkeypatch):
    """No room when the ``nth`` file or folder is to be on the disk itself."""
    left, sync = nth, os.fsync

    def fsync(handle):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        yield


@contextmanager
def at_most(size):
    """No file can become larger than ``size`` bytes: what is beyond is not written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sound(folder, error):
    """What must hold of a run folder after a failed write."""
    (line,) = str(error.value).splitlines()
    assert line.startswith("cannot write ") and str(folder) in line and "intact" in line
    assert error.value.exit_code == 1
    for run in folder.glob("reat-*"):
        assert not list(run.glob(".*.tmp"))
        ckpt.load_checkpoint(run, CPU)  # none is half-written


def test_no_room_at_any_write(tmp_path, monkeypatch, expected):
    """Every kind of file meets it: plan, checkpoint, history, network, evaluation state, record."""
    met, nth, found = set(), 0, None
    while found is None:
        nth += 1
        try:
            with full_at(nth, monkeypatch):
                found = attempt(tmp_path)
        except StorageError as error:
            met.add(str(error).split(":")[0].split("/")[-1])
            with pytest.raises(StorageError) as caught:
                raise error
            sound(tmp_path, caught)
    assert found.result == expected
    assert {"plan.json", "checkpoint-0001", "training.csv", "model.safetensors", "evaluation.npz"} <= met


@pytest.mark.parametrize("size", [0, 100, 4000, 20_000])
def test_a_file_that_is_cut_off(tmp_path, size, expected):
    with at_most(size), pytest.raises(StorageError) as error:
        attempt(tmp_path)
    sound(tmp_path, error)
    assert attempt(tmp_path).result == expected


def test_the_command_line_says_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with at_most(100):
        code = main(["train", "--method", "at", "--dataset", "digits-lt", "--protocol", "smoke", "--epochs", "1"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 1 and line.startswith("Error: cannot write runs/at-digits-lt") and "File too large" in line


def test_a_folder_that_cannot_be_written_is_wrong_usage(tmp_path):
    (tmp_path / "runs").write_text("no folder")
    with pytest.raises(UsageError, match=r"cannot write to .*runs.*name another folder"):
        attempt(tmp_path / "runs")


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """fsync of the file, then the rename, then fsync of the folder."""
    order, sync, rename = [], os.fsync, files.Path.replace

    def fsync(handle):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        sync(handle)

    def replace(self, target):
        order.append("rename")
        return rename(self, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.Path, "replace", replace)
    files.write_text(tmp_path / "a", "text")
    assert order == ["file", "rename", "folder"]
