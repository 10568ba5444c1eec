"""A disk that is full: one line with the path, exit code 1, the last good state intact; with room, the same command
goes on to the same result."""

from __future__ import annotations

import errno
import os
import re
import resource
from contextlib import contextmanager

import pytest
import torch

import ltrobust_bench as lt
from ltrobust_bench import files
from ltrobust_bench.cli.main import main
from ltrobust_bench.errors import StorageError, UsageError
from ltrobust_bench.training import checkpoint as ckpt

REQUEST = lt.Request("reat", "digits-lt", protocol="smoke", epochs=2, limit_train=60, limit_test=20)
CPU = torch.device("cpu")
MOST = 30
"""Kinds of files and folders that a run writes."""


def attempt(folder):
    return lt.run(REQUEST, runs_dir=folder, results_dir=folder / "results", device="cpu")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return attempt(tmp_path_factory.mktemp("whole")).result


def fill_once_for_each(monkeypatch, met):
    """No room when a file or folder is to be on the disk itself, once for each name; the names are added to ``met``."""
    sync = os.fsync

    def fsync(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
        name = re.sub(r"\.([^/]+)\.\w+\.tmp", r"\1", path.split("/reat-")[-1].split("/", 1)[-1])
        if name not in met:
            met.add(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)


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
    (line,) = str(error).splitlines()
    assert line.startswith("cannot write ") and str(folder) in line and "intact" in line
    assert error.exit_code == 1
    for run in folder.glob("reat-*"):
        assert not list(run.glob(".*.tmp"))
        ckpt.load_checkpoint(run, CPU)  # none is half-written


def test_no_room_at_any_write(tmp_path, monkeypatch, expected):
    """Every kind of file meets it: plan, checkpoint, history, network, evaluation state, record."""
    met, found = set(), None
    fill_once_for_each(monkeypatch, met)
    while found is None:
        before = len(met)
        assert before < MOST, f"a name differs each time: {sorted(met)}"
        try:
            found = attempt(tmp_path)
        except StorageError as error:
            assert len(met) == before + 1
            sound(tmp_path, error)
    assert found.result == expected
    checkpoint = {f"checkpoint-0001{file}" for file in ("", "/weights.safetensors", "/state.pt", "/meta.json")}
    assert {"plan.json", "training.csv", "model.safetensors", "evaluation.npz", "record.json", *checkpoint} <= met


@pytest.mark.parametrize("size", [0, 100, 4000, 20_000])
def test_a_file_that_is_cut_off(tmp_path, size, expected):
    with at_most(size), pytest.raises(StorageError) as caught:
        attempt(tmp_path)
    sound(tmp_path, caught.value)
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
