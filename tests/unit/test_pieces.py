"""Networks and checkpoints in pieces, where files have to be small: the same run, and nothing is half-written."""

from __future__ import annotations

import sys

import pytest
import torch
from stopping import StopAfter

from ltrobust_bench import files
from ltrobust_bench.errors import CheckpointError, UsageError
from ltrobust_bench.files import is_there, read_large, write_large
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.sweeps.states import states_in
from ltrobust_bench.training.checkpoint import read_model
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import evaluate

CPU, SMALL = torch.device("cpu"), 20_000
"""Bytes of a piece; a small network has 85 kB."""


@pytest.mark.parametrize("size", [1, 9, 10, 11, 30, 125])
def test_what_is_written_is_read(tmp_path, size):
    path, content = tmp_path / "file", bytes(range(size))
    write_large(path, content, 10)
    assert is_there(path) and read_large(path) == content and path.exists() == (size <= 10)
    names = sorted(tmp_path.glob("file-*"))
    assert all(name.stat().st_size <= 10 for name in names)
    if size > 10:  # what `cat` makes of them is the file
        assert b"".join(name.read_bytes() for name in names) == content


def test_a_file_that_is_written_again_is_one_of_the_two(tmp_path):
    path = tmp_path / "file"
    for content, most in ((b"a" * 25, 10), (b"b" * 12, 10), (b"c" * 25, None), (b"d" * 25, 5)):
        write_large(path, content, most)
        assert read_large(path) == content
    assert len(list(tmp_path.iterdir())) == 6  # five pieces and what says so


def test_pieces_are_no_file_before_all_of_them_are_there(tmp_path, monkeypatch):
    """Killed in between, there is the file from before, or none."""
    path, write, left = tmp_path / "file", files.write_bytes, [2]

    def killed(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(files, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        write_large(path, b"x" * 30, 10)
    assert not is_there(path)
    write(path, b"before")
    left[0] = 3
    with pytest.raises(KeyboardInterrupt):  # at the index
        write_large(path, b"x" * 30, 10)
    assert read_large(path) == b"before"


def test_a_damaged_piece_is_named(tmp_path):
    path = tmp_path / "file"
    write_large(path, bytes(30), 10)
    (tmp_path / "file-2-of-3").write_bytes(bytes(9))
    with pytest.raises(ValueError, match="file-2-of-3 has another SHA-256"):
        read_large(path)
    (tmp_path / "file-2-of-3").unlink()
    with pytest.raises(OSError, match="file-2-of-3"):
        read_large(path)


@pytest.mark.parametrize("said", ["some", "0", "-3", "inf", "nan"])
def test_a_size_that_is_none_is_refused_before_training(tmp_path, monkeypatch, said):
    monkeypatch.setenv(files.SHARD, said)
    with pytest.raises(UsageError, match="give MB, for example LTBENCH_SHARD=15"):
        train_plan(PLAN, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


PLAN = make_plan("reat", "digits-lt", protocol="smoke", limit_train=60, limit_test=20, epochs=3)


def test_a_run_in_pieces_goes_on_and_ends_as_one_in_whole_files(tmp_path, monkeypatch):
    whole = read_model(train_plan(PLAN, tmp_path / "whole", CPU).model_path)
    folder = tmp_path / "runs" / PLAN.run.folder_name()
    monkeypatch.setenv(files.SHARD, str(SMALL / 1e6))
    with pytest.raises(KeyboardInterrupt):
        train_plan(PLAN, folder, CPU, StopAfter(PLAN.steps_per_epoch * 2))
    kept = list(folder.glob("checkpoint-*/*"))
    assert kept and max(path.stat().st_size for path in kept) <= SMALL
    assert any(path.name.startswith("weights.safetensors-2-of-") for path in kept)
    monkeypatch.delenv(files.SHARD)  # what lies there is read as it is

    def refuse(*_, **__):
        raise AssertionError("begun again")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["ltrobust_bench.training.trainer"].Session, "_epoch", refuse)
        with pytest.raises(AssertionError):  # of the third epoch
            train_plan(PLAN, folder, CPU)
    monkeypatch.setenv(files.SHARD, str(SMALL / 1e6))
    result = train_plan(PLAN, folder, CPU)
    pieces = read_model(result.model_path)
    assert len(result.history) == 3 and not result.model_path.exists()
    assert pieces[1]["weights_sha256"] == whole[1]["weights_sha256"]
    assert max(path.stat().st_size for path in folder.iterdir() if "safetensors" in path.name) <= SMALL
    # Every reader takes it: the trainer, the states of a sweep, an evaluation of the folder or of the file's name.
    assert train_plan(PLAN, folder, CPU).forwards_here == 0
    assert [seen.state for seen in states_in(folder.parent) if seen.id.endswith(".train")] == ["done"]
    for path in (folder, result.model_path):
        assert set(evaluate(path, attacks=["fgsm"], limit_test=10, device="cpu").bits) == {"clean", "fgsm"}
    piece = next(folder.glob("model.safetensors-2-of-*"))
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="model.safetensors-2-of-"):
        read_model(folder)


def test_a_damaged_checkpoint_in_pieces_costs_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv(files.SHARD, str(SMALL / 1e6))
    with pytest.raises(KeyboardInterrupt):
        train_plan(PLAN, tmp_path, CPU, StopAfter(PLAN.steps_per_epoch * 2))
    next(tmp_path.glob("checkpoint-0002/state.pt-2-of-*")).unlink()
    assert len(train_plan(PLAN, tmp_path, CPU).history) == 3
