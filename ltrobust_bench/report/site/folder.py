"""Replacing a folder as a whole, and only one that was written by us."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ltrobust_bench.errors import UsageError
from ltrobust_bench.files import make_folder, writing

GENERATOR = "ltbench report site"
"""What every page says it was made by; a folder whose index.html says so may be replaced."""


def check(output: Path) -> None:
    """See that ``output`` may be replaced.

    Raises:
        UsageError: if it is a file, or a folder with something else in it.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    index, mark = output / "index.html", f'<meta name="generator" content="{GENERATOR}">'
    if not index.is_file() or mark not in index.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(
            f"{output} was not made by `{GENERATOR}`, so it is not replaced; name a new folder with --output."
        )


def replace(output: Path, files: Mapping[str, str]) -> None:
    """Make ``output`` a folder with exactly these files (path below it to text); it is never seen half-written.

    Raises:
        UsageError: if the folder cannot be written.
        StorageError: if the disk is full.
    """
    output = Path(os.path.abspath(output))  # noqa: PTH100 - not resolve(): a link must stay one
    make_folder(output.parent)
    with writing(output):
        workplace = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".tmp"))
        try:
            new, old = workplace / "new", workplace / "old"
            for name, text in files.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode())
            if output.exists():
                output.replace(old)
            new.replace(output)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
