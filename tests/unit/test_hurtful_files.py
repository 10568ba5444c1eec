"""Files that would hang the reader, fill the memory or deceive the terminal: each ends in one line."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import struct
import threading
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltrobust_bench import reading
from ltrobust_bench.cards import read_card
from ltrobust_bench.cli.main import main
from ltrobust_bench.cli.words import echo
from ltrobust_bench.data.pixels import pixels_of
from ltrobust_bench.data.registry import locate
from ltrobust_bench.data.sources import load_source
from ltrobust_bench.errors import CheckpointError, DataError, LTBenchError, UsageError, one_line
from ltrobust_bench.files import read_large
from ltrobust_bench.interop.factory import from_factory
from ltrobust_bench.models.weights import read_weights
from ltrobust_bench.protocol.load import read_protocol
from ltrobust_bench.sweeps.plan import read_plan
from ltrobust_bench.training.checkpoint import load_checkpoint, save_checkpoint
from ltrobust_bench.verbs.trials import read_trials

ROOT = Path(__file__).resolve().parents[2]
RECORD = sorted((ROOT / "results" / "records" / "digits-v0").rglob("*.json"))[0]
LOWER = ["record", "lower", RECORD, "--weights", "nowhere", "--by", "me"]
ODD = "a\x1b[2J\nb\u202ec"
"""A name that clears the screen, takes two lines, and turns the direction of writing around."""


def printed(capsys, *arguments):
    """Exit code and the lines of ``ltbench ARGUMENTS``; each prints."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    lines = (out + err).splitlines()
    assert all(line.isprintable() for line in lines), lines
    return code, lines


def npy(shape, data=b"", kind="<f4"):
    """An array's bytes whose header says what it likes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def npz(path, **arrays):
    """A compressed .npz of arrays, or of the bytes of what claims to be one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            content = value
            if not isinstance(value, bytes):
                buffer = io.BytesIO()
                np.save(buffer, value)
                content = buffer.getvalue()
            archive.writestr(f"{name}.npy", content)
    return path


def pictures(root, sizes=((9, 9),) * 3):
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            Image.new("RGB", size, (40 * i, 9, 9)).save(root / name / f"{i}.png")
    return root


# examples of `record lower`


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"index": np.arange(3), "images": npy((10**12, 1, 8, 8), bytes(100))}, "larger than is allowed"),
        ({"index": npy((2**62,), kind="<i8"), "images": np.zeros((3, 1, 8, 8))}, "larger than is allowed"),
        ({"index": npy((-1,), kind="<i8"), "images": np.zeros((3, 1, 8, 8))}, "says that it has shape"),
        ({"index": npy((2 * 10**9,), kind="<U0"), "images": np.zeros((3, 1, 8, 8))}, "holds no numbers"),
        ({"index": npy((0, 2**62), kind="<i8"), "images": np.zeros((3, 1, 8, 8))}, "larger than is allowed"),
        ({"index": npy((2**40, 0), kind="<i8"), "images": np.zeros((3, 1, 8, 8))}, "larger than is allowed"),
        ({"index": npy((-1, 0), kind="<i8"), "images": np.zeros((3, 1, 8, 8))}, "says that it has shape"),
        ({"index": npy((True, 0), kind="<i8"), "images": np.zeros((3, 1, 8, 8))}, "says that it has shape"),
        ({"index": np.arange(3), "images": np.float32(1)}, "`images` has 0 axes"),
        ({"index": np.int64(3), "images": np.zeros((1, 1, 8, 8))}, "one whole number for each"),
        ({"index": np.arange(3), "images": npy((3, 1, 8, 8), bytes(100))}, "has another size"),
        ({"index": np.arange(1), "images": npy((1,), b"x" * 8, "|O")}, "holds no numbers"),
        ({"index": np.arange(1)}, "has no array `images`"),
        ({"index": b"\x93NUMPY\x01\x00\xff\xff{", "images": np.zeros((1, 1, 8, 8))}, "is no .npz"),
    ],
)
def test_examples_whose_headers_lie(capsys, tmp_path, arrays, says):
    path = npz(tmp_path / "x.npz", **arrays)
    code, (line,) = printed(capsys, *LOWER, "--examples", path)
    assert code == 2 and line.startswith("Error: ") and says in line


def test_examples_that_unfold_are_not_unfolded(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("ltrobust_bench.verbs.counterexamples.LARGEST", 5_000_000)
    path = npz(tmp_path / "x.npz", index=np.arange(100_000), images=np.zeros((100_000, 1, 8, 8), np.uint8))
    assert path.stat().st_size < 200_000
    code, (line,) = printed(capsys, *LOWER, "--examples", path)
    assert code == 2 and "would unfold into" in line


def test_arrays_are_read_as_numpy_reads_them(tmp_path):
    arrays = {
        "a": np.arange(12, dtype=">i4").reshape(3, 4),
        "b": np.asfortranarray(np.random.default_rng(0).random((2, 3, 5))),
        "c": np.zeros((0, 3), dtype=np.float16),
        "d": np.array(True),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    content = (tmp_path / "x.npz").read_bytes()
    found = reading.read_arrays(content, arrays, 10_000)
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value)
    with pytest.raises(ValueError, match="would unfold into"):
        reading.read_arrays(content, arrays, 100)


# weights


def test_compressed_weights_are_not_unfolded(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for name in plain.namelist():
            other.writestr(name, plain.read(name))
    assert read_weights(tmp_path / "plain.pt")["a"].shape == (1000,)
    with pytest.raises(CheckpointError, match="compressed or encrypted"):
        read_weights(tmp_path / "x.pt")


def test_one_number_that_says_it_is_a_billion(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="would unfold into 4,000 MB"):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.empty(3, device="meta"), 3])
def test_tensors_that_are_no_numbers(tmp_path, value):
    torch.save({"a": value}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="plain tensors"):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("index", [b"[]", b"{}", b'{"sha256": 3}', b'{"sha256": []}', b"[" * 10_000, b"\xff"])
def test_an_index_of_pieces_that_says_nothing(tmp_path, index):
    (tmp_path / "model.safetensors.pieces").write_bytes(index)
    with pytest.raises(ValueError, match="does not say which pieces"):
        read_large(tmp_path / "model.safetensors")


# pipes and devices


@pytest.fixture
def pipe(tmp_path):
    """A pipe that nobody writes into: to open it is to wait. Who does is let go after some seconds, and fails."""
    path = tmp_path / "x.png"
    os.mkfifo(path)

    def release() -> None:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(5, release)
    timer.start()
    yield path
    timer.cancel()


def test_a_pipe_is_no_file(pipe):
    for read in (read_card, read_protocol, read_plan, read_trials):
        with pytest.raises(UsageError, match="no plain file"):
            read(pipe)
    with pytest.raises(OSError, match="no plain file"):
        reading.read_bytes(pipe)


def test_a_pipe_for_examples(capsys, pipe):
    code, (line,) = printed(capsys, *LOWER, "--examples", pipe)
    assert code == 2 and "no plain file" in line


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(tmp_path, device):
    for read in (read_card, read_protocol, read_plan, read_trials):
        with pytest.raises(UsageError, match="no plain file"):
            read(Path(device))
    root = pictures(tmp_path / "photos")
    (root / "a" / "x.png").symlink_to(device)
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image \(it is no plain file\)"):
        load_source(*locate(f"folder:{root}", None))


def test_a_pipe_among_pictures(tmp_path):
    root = pictures(tmp_path / "photos")
    os.mkfifo(root / "a" / "x.png")
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image \(it is no plain file\)"):
        load_source(*locate(f"folder:{root}", None))


def test_a_file_is_read_no_further_than_it_may_be(tmp_path):
    (tmp_path / "x").write_bytes(bytes(1001))
    assert len(reading.read_bytes(tmp_path / "x", 1001)) == len(reading.read_bytes(tmp_path / "x", None)) == 1001
    with pytest.raises(ValueError, match="larger than 1,000 bytes"):
        reading.read_bytes(tmp_path / "x", 1000)
    with pytest.raises(IsADirectoryError):
        reading.read_bytes(tmp_path)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = 1" + "0" * 5000, "x = '\udcff'", "." * 300_000])
def test_toml_that_no_reader_is_made_for(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    for read in (read_card, read_protocol, read_plan):
        with pytest.raises(UsageError) as refusal:
            read(path)
        assert len(str(refusal.value)) < 500


# pictures


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    root = pictures(tmp_path / "photos")
    for width in (13_000, 9_200):  # beyond what Pillow warns of, and below
        path = root / "a" / "huge.png"
        header = struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)
        content = (root / "a" / "0.png").read_bytes()
        chunk = b"IHDR" + header
        path.write_bytes(content[:12] + chunk + struct.pack(">I", __import__("zlib").crc32(chunk)) + content[33:])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=r"huge\.png has more than 80 million pixels"):
                load_source(*locate(f"folder:{root}", None))
            with pytest.raises(DataError, match=r"huge\.png has more than 80 million pixels"):
                pixels_of(path, (3, 32, 32))  # as `predict` reads it


def test_a_picture_starts_no_other_program(tmp_path):
    root = pictures(tmp_path / "photos")
    (root / "a" / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match=r"x\.png cannot be read as an image \(it is no picture\)"):
        load_source(*locate(f"folder:{root}", None))


def test_what_macos_puts_into_zip_files_is_left_alone(tmp_path):
    root = pictures(tmp_path / "photos")
    before = load_source(*locate(f"folder:{root}", None))
    pictures(root / "__MACOSX" / "photos")
    pictures(root / "a" / "__MACOSX")
    (root / "a" / "._0.png").write_bytes(b"\0\5\x16\7")
    (root / "b" / ".DS_Store").write_bytes(b"x")
    assert load_source(*locate(f"folder:{root}", None)).sha256 == before.sha256


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(DataError, match="whole file system"):
        load_source(*locate("folder:/", None))
    root = pictures(tmp_path / "photos")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b" / "self")
    with pytest.raises(DataError, match="links that repeat"):
        load_source(*locate(f"folder:{root}", None))


# what code of others does


def test_code_that_leaves(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaving_nets.py").write_text(
        "import torch\n"
        "def at_once(): raise SystemExit(0)\n"
        "class Later(torch.nn.Module):\n"
        "    def forward(self, x): raise SystemExit(0)\n"
    )
    with pytest.raises(UsageError, match="SystemExit: 0"):
        from_factory("leaving_nets:at_once", None)
    code, (line,) = printed(capsys, "eval", "--torch", "leaving_nets:Later", "-d", "digits-lt", "--protocol", "smoke")
    assert code == 1 and "code that is not ltbench's ended the command" in line


@pytest.mark.parametrize("threads", ["0", "100000", "2147483648", "9" * 30])
def test_threads_that_there_are_not(capsys, threads):
    code, (line,) = printed(capsys, "run", "--method", "at", "-d", "digits-lt", "--threads", threads)
    assert code == 2 and "is not in the range" in line


# what is shown


def test_an_error_is_one_line_whatever_is_in_it(capsys):
    assert one_line(ODD) == "a\\x1b[2J\\nb\\u202ec" and one_line(one_line(ODD)) == one_line(ODD)
    assert str(LTBenchError(ODD)) == str(UsageError(ODD)) == one_line(ODD)
    odd_bytes = os.fsdecode(b"x\xff")
    for odd in (ODD, odd_bytes):
        for arguments in (
            ["eval", odd],
            ["record", "show", odd],
            ["run", "--method", odd, "-d", "digits-lt"],
            ["run", "--method", "at", "-d", f"folder:{odd}"],
            ["sweep", odd],
            [odd],
            ["run", f"--{odd}"],
        ):
            code, (line,) = printed(capsys, *arguments)
            assert code == 2 and line.startswith("Error: "), arguments


def test_names_in_folders_are_escaped(capsys, tmp_path):
    root = pictures(tmp_path / ODD)
    for name, odd in (("a", ODD), ("b", os.fsdecode(b"b\xff"))):
        (root / name).rename(root / odd)
    code, lines = printed(capsys, "data", "info", f"folder:{root}")
    assert code == 0 and any("a\\x1b[2J\\nb\\u202ec" in line for line in lines)
    other = pictures(tmp_path / "other")
    (other / "a" / f"{ODD}.png").write_bytes(b"no picture")
    code, (line,) = printed(capsys, "data", "info", f"folder:{other}")
    assert code == 2 and "cannot be read as an image" in line


def test_a_terminal_is_given_what_prints(capsys):
    from ltrobust_bench.cli.shared import console

    for show in (partial(console().print, soft_wrap=True), echo):
        show(ODD)
        assert capsys.readouterr().out == "a\\x1b[2J\nb\\u202ec\n"


def test_no_command_prints_past_what_escapes():
    """A folder's name in what `doctor` printed turned the writing around (found by fuzzing)."""
    for path in sorted((ROOT / "ltrobust_bench" / "cli").glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        past = {ast.unparse(call) for call in calls} & {"click.echo", "click.secho", "print", "sys.stdout.write"}
        assert past == ({"click.echo"} if path.name == "words.py" else set()), path.name


def test_a_checkpoint_that_unfolds_is_damaged(tmp_path):
    """100 MB of zeros in a hundred kilobytes, where torch looks for the order of bytes; its digest is the file's."""
    save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {"history": []})
    (folder,) = tmp_path.glob("checkpoint-*")
    with zipfile.ZipFile(folder / "state.pt") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(folder / "state.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, bytes(100_000_000) if name.endswith("byteorder") else content)
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("weights.safetensors", "state.pt")
    }
    (folder / "meta.json").write_text(json.dumps({"sha256": digests}))
    with pytest.raises(CheckpointError, match="a member is compressed"):
        load_checkpoint(tmp_path, torch.device("cpu"))


# the one place

OPENS = {"open", "safe_open", "read_bytes", "read_text", "load_file", "memmap", "fromfile"}
"""What opens a file, whatever it belongs to."""
READS = {"np.load", "zipfile.ZipFile", "torch.load", "json.load", "pickle.load", "tomllib.load", "tomllib.loads"}
OURS: dict[str, tuple[set[str], str]] = {
    "reading.py": ({"open", "ZipFile", "loads"}, "it is the place"),
    "files.py": ({"open"}, "folders and files that were just written, to have them on the disk"),
    "cli/main.py": ({"open"}, "where nothing is kept, for a reader that has gone"),
    "contribute": ({"read_text"}, "source of the method that is being run"),
    "data/archive.py": ({"ZipFile", "open"}, "members are stored, and bounded by the file; pictures in memory"),
    "data/extra.py": ({"ZipFile"}, "names of members, of a plain file"),
    "data/known.py": ({"read_text", "loads"}, "the package's own table"),
    "data/pictures.py": ({"open"}, "in memory"),
    "evaluation/identity.py": ({"read_bytes"}, "source of the model that is being run"),
    "executors/base.py": ({"open"}, "a log of its own, to write"),
    "interop/examples.py": ({"ZipFile"}, "names of members, of a plain file"),
    "machine.py": ({"read_text"}, "/proc/cpuinfo"),
    "models/weights.py": ({"ZipFile", "load", "load_file"}, "of a plain file; members are stored"),
    "plan/code.py": ({"read_bytes"}, "source of the package and the method"),
    "records/cache.py": ({"read_bytes", "read_text"}, "our own cache, and the package's source"),
    "records/origin.py": ({"open"}, "what git gives, in memory"),
    "report/claims/stated.py": ({"read_text", "loads"}, "the package's own table"),
    "report/site": ({"read_text"}, "the package's own pages, and a mark in a page of ours"),
    "tracking/runlog.py": ({"open"}, "a log of its own, to write"),
    "training/checkpoint.py": ({"load"}, "in memory"),
    "verbs/apart.py": ({"open", "read_bytes"}, "a log of its own, and source of the package"),
    "verbs/exporting.py": ({"open"}, "a file that was just written"),
    "verbs/runs.py": ({"read_bytes"}, "a record that was read strictly before"),
}
"""Modules that open files themselves, by which calls, and why that is right."""


def opened(path):
    """What in a module opens files, as (line, name of what is called)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            owner, name = "", node.func.id
        elif isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
        else:
            continue
        through_us = owner in ("", "reading") and name in ("read_bytes", "read_text")
        if not through_us and (name in OPENS or f"{owner}.{name}" in READS):
            yield node.lineno, name


def test_files_of_others_are_read_in_one_place():
    package, found, used = ROOT / "ltrobust_bench", set(), set()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        for line, name in opened(path):
            known = {(ours, name) for ours, (names, _) in OURS.items() if place.startswith(ours) and name in names}
            used |= known
            found |= set() if known else {f"{place}:{line}: {name}"}
    assert not found, f"use ltrobust_bench.reading in {sorted(found)}"
    assert used == {(ours, name) for ours, (names, _) in OURS.items() for name in names}, "no longer needed"


@pytest.mark.parametrize("text", [
    "open('x')", "Path('x').open()", "p.read_text()", "safe_open(p, 'pt')", "np.load(p)", "io.open(p)", "torch.load(p)",
    "Image.open(p)", "load_file(p)", "zipfile.ZipFile(p)", "tarfile.open(p)", "json.load(f)",
])  # fmt: skip
def test_whoever_opens_a_file_otherwise_is_found(tmp_path, text):
    (tmp_path / "x.py").write_text(f"def f():\n    return {text}\n")
    assert len(list(opened(tmp_path / "x.py"))) == 1
    (tmp_path / "x.py").write_text("read_bytes('x'), reading.read_text('x'), plain_file('x')\n")
    assert not list(opened(tmp_path / "x.py"))
