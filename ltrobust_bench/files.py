"""Writing files so that nothing half-written can stay: to a temporary name first, on the disk itself, then renamed; and
where folders are that come with the records."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ltrobust_bench.errors import StorageError, UsageError
from ltrobust_bench.reading import read_bytes

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a full or failing disk answers: no space, no quota, too large a file, an error of the device."""
SHARD = "LTBENCH_SHARD"
"""Environment variable: networks and checkpoints of more MB than it says are written in pieces of at most that."""


def beside_records(folder: str) -> list[Path]:
    """Where a folder that comes with the records may be: in the results of ``LTBENCH_RESULTS``, the checkout and the
    installed package."""
    given, package = os.environ.get("LTBENCH_RESULTS"), Path(__file__).resolve().parent
    results = [Path(given)] if given else []
    return [*(place / folder for place in (*results, package.parent / "results")), package / folder]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the path that was written to where a disk is full or fails.

    Raises:
        StorageError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StorageError(
            f"cannot write {path}: {error.strerror}. What was there before is intact; make room, and the same command "
            "goes on."
        ) from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; renamed to ``path`` if the block succeeds, else removed.

    Raises:
        StorageError: if the disk is full.
        UsageError: if there is a folder, a pipe or a device of that name, which the new file would replace.
    """
    make_folder(path.parent)
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot write to {path}: it is there, and no plain file; name another.")
    with writing(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            _sync(temporary)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; takes its place if the block succeeds, else it is removed. It holds files
    only.

    Raises:
        StorageError: if the disk is full.
    """
    make_folder(path.parent)
    with writing(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            _sync_folder(temporary)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file on the disk itself before it gets its name: a name outlives a power failure sooner than content."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Have a folder's names on the disk itself, where the system can."""
    with suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such thing
                raise
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, UTF-8, with the line ends as given."""
    write_bytes(path, text.encode())


def shard_bytes() -> int | None:
    """Bytes that a file of weights may have, as :data:`SHARD` says; None: as many as it needs.

    Raises:
        UsageError: for something that is no size.
    """
    said = os.environ.get(SHARD)
    if not said:
        return None
    try:
        size = int(float(said) * 1e6)
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise UsageError(f"{SHARD}={said} is no size; give MB, for example {SHARD}=15.")
    return size


def write_large(path: Path, content: bytes, most: int | None) -> None:
    """Write ``content`` to ``path``, or, if it has more than ``most`` bytes, in pieces beside it.

    Pieces are ``NAME-1-of-3`` and so on; put one behind the other they are the file. ``NAME.pieces``, which is written
    when they are all on the disk, says that they belong together, and their SHA-256.
    """
    index = _index(path)
    if most is None or len(content) <= most:
        write_bytes(path, content)
        index.unlink(missing_ok=True)
        return
    pieces = [content[start : start + most] for start in range(0, len(content), most)]
    names = _pieces(path, len(pieces))
    for name, piece in zip(names, pieces, strict=True):
        write_bytes(name, piece)
    write_text(index, json.dumps({"sha256": [hashlib.sha256(piece).hexdigest() for piece in pieces]}) + "\n")
    for other in {path, *path.parent.glob(f"{path.name}-*-of-*")} - set(names):
        other.unlink(missing_ok=True)


def read_large(path: Path) -> bytes:
    """What :func:`write_large` wrote.

    Raises:
        OSError: if it, or a piece of it, is not there.
        ValueError: naming the piece, or the index of pieces, that is not what was written.
    """
    if path.is_file() or not _index(path).is_file():
        return read_bytes(path, None)
    digests, pieces = _digests(_index(path)), []
    for name, digest in zip(_pieces(path, len(digests)), digests, strict=True):
        pieces.append(read_bytes(name, None))
        if hashlib.sha256(pieces[-1]).hexdigest() != digest:
            raise ValueError(f"{name.name} has another SHA-256 than when it was written")
    return b"".join(pieces)


def _digests(index: Path) -> list[str]:
    try:
        digests = json.loads(read_bytes(index))["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError):
        digests = None
    if not isinstance(digests, list) or not digests:
        raise ValueError(f"{index.name} does not say which pieces there are")
    return digests


def is_there(path: Path) -> bool:
    """Whether there is a file that :func:`write_large` wrote, whole or in pieces."""
    return path.is_file() or _index(path).is_file()


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.pieces")


def _pieces(path: Path, count: int) -> list[Path]:
    width = len(str(count))  # so that they sort as they follow one another
    return [path.with_name(f"{path.name}-{i:0{width}}-of-{count}") for i in range(1, count + 1)]


def make_folder(path: Path) -> None:
    """Create ``path`` with its parents and see that it can be written.

    Raises:
        StorageError: if the disk is full.
        UsageError: naming the folder and the reason.
    """
    try:
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path, prefix=".writable.", suffix=".tmp")
            os.close(handle)
            Path(name).unlink(missing_ok=True)  # whoever holds the folder may just have tidied it up
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}; name another folder.") from None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder that the caller holds alone."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
