"""Writing files so that nothing half-written can stay: to a temporary name first, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltrobust_bench.errors import UsageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; renamed to ``path`` if the block succeeds, else removed."""
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, UTF-8, with the line ends as given."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def make_folder(path: Path) -> None:
    """Create ``path`` with its parents and see that it can be written.

    Raises:
        UsageError: naming the folder and the reason.
    """
    try:
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
