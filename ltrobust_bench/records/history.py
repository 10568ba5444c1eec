"""Records are append-only: what git says was done to files that a commit already holds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ltrobust_bench.errors import UsageError

WORDS = {"D": "deleted", "T": "replaced by a link"}


@dataclass(frozen=True)
class History:
    """A comparison with a commit.

    Attributes:
        against: the commit in words; empty if there was nothing to compare with.
        changed: files that the commit holds and that are another now, and in which way.
    """

    against: str
    changed: dict[Path, str]


def changes_since(paths: Iterable[Path], against: str | None = None) -> History:
    """Which JSON files at or below ``paths`` were changed since a commit.

    Args:
        paths: files and folders; they may be gone.
        against: a commit; what is compared with is the last one that it and the checkout have in common, so a branch is
            not blamed for what it has not merged yet. None: ``HEAD``, where there is one.

    Raises:
        UsageError: if ``against`` names no commit of the checkout, or there is no checkout.
    """
    roots: dict[Path, list[Path]] = {}
    for path in paths:
        whole = path.absolute()
        folder = next(p for p in (whole, *whole.parents) if p.is_dir())
        top = _git(folder, "rev-parse", "--show-toplevel")
        if top is not None:
            roots.setdefault(Path(os.fsdecode(top.rstrip(b"\n"))), []).append(whole)
        elif against is not None:
            raise UsageError(f"--against {against}: {folder} lies in no git checkout.")
    names: list[str] = []
    changed: dict[Path, str] = {}
    for root, members in roots.items():
        commit = _commit(root, against or "HEAD")
        if commit is None:
            if against is not None:
                raise UsageError(f"--against {against}: no such commit in {root}; fetch it, or name another.")
            continue
        common = _git(root, "merge-base", commit, "HEAD")
        since = common.decode().strip() if common else commit
        names.append(f"{against or 'HEAD'} ({since[:7]})")
        changed |= _changed(root, since, members)
    return History(", ".join(sorted(set(names))), changed)


def never_committed(path: Path) -> bool:
    """Whether git can tell that no commit of its checkout, on any branch, ever held a file."""
    if _git(path.parent, "rev-parse", "--show-toplevel") is None:
        return False
    return _git(path.parent, "--literal-pathspecs", "log", "--all", "-1", "--format=%H", "--", path.name) == b""


def _changed(root: Path, commit: str, members: list[Path]) -> dict[Path, str]:
    options = ["--name-status", "--no-renames", "--no-ext-diff", "--diff-filter=MDT", "-z"]
    found = _git(root, "--literal-pathspecs", "diff", *options, commit, "--", *map(str, members))
    words = (found or b"").split(b"\0")[:-1]
    states = {root / os.fsdecode(name): state.decode() for state, name in zip(words[::2], words[1::2], strict=True)}
    return {path: WORDS.get(state, "edited") for path, state in states.items() if path.suffix == ".json"}


def _commit(root: Path, name: str) -> str | None:
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.decode().strip() if found else None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Output of git, or None if it fails or there is no git."""
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
