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
        changed: files that the commit holds, that are another now and must not be, and in which way.
        touched: files that were added or edited.
    """

    against: str
    changed: dict[Path, str]
    touched: frozenset[Path]


def changes_since(paths: Iterable[Path], against: str | None = None) -> History:
    """Which files at or below ``paths`` were changed since a commit.

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
        top = git_output(folder, "rev-parse", "--show-toplevel")
        if top is not None:
            roots.setdefault(Path(os.fsdecode(top.rstrip(b"\n"))), []).append(whole)
        elif against is not None:
            raise UsageError(f"--against {against}: {folder} lies in no git checkout.")
    names: list[str] = []
    changed: dict[Path, str] = {}
    touched: set[Path] = set()
    for root, members in roots.items():
        commit = _commit(root, against or "HEAD")
        if commit is None:
            if against is not None:
                raise UsageError(f"--against {against}: no such commit in {root}; fetch it, or name another.")
            continue
        common = git_output(root, "merge-base", commit, "HEAD")
        since = common.decode().strip() if common else commit
        names.append(f"{against or 'HEAD'} ({since[:7]})")
        states = _states(root, since, members)
        changed |= {path: WORDS.get(state, "edited") for path, state in states.items() if _stays(path, state)}
        touched |= {path for path, state in states.items() if state in "AM"}
    return History(", ".join(sorted(set(names))), changed, frozenset(touched))


def never_committed(path: Path) -> bool:
    """Whether git can tell that no commit of its checkout, on any branch, ever held a file."""
    if git_output(path.parent, "rev-parse", "--show-toplevel") is None:
        return False
    return git_output(path.parent, "--literal-pathspecs", "log", "--all", "-1", "--format=%H", "--", path.name) == b""


def author_of(path: Path) -> str:
    """The e-mail address of who added a file, as git knows it; empty: git does not know."""
    if git_output(path.parent, "rev-parse", "--is-shallow-repository") != b"false\n":
        return ""
    wanted = ("--literal-pathspecs", "log", "--diff-filter=A", "--format=%ae", "--no-renames", "--", path.name)
    return (git_output(path.parent, *wanted) or b"").decode(errors="replace").strip().rpartition("\n")[2]


def _states(root: Path, commit: str, members: list[Path]) -> dict[Path, str]:
    """Git's letter for each file that differs: A, M, D or T."""
    options = ["--name-status", "--no-renames", "--no-ext-diff", "--diff-filter=AMDT", "-z"]
    found = git_output(root, "--literal-pathspecs", "diff", *options, commit, "--", *map(str, members))
    words = (found or b"").split(b"\0")[:-1]
    return {root / os.fsdecode(name): state.decode() for state, name in zip(words[::2], words[1::2], strict=True)}


def _stays(path: Path, state: str) -> bool:
    """Whether what was done to a file is forbidden: statements may be signed anew, and keys are added and retired."""
    if path.suffix in (".sig", "") and state != "T":
        return state == "D"
    return state != "A" and path.suffix in (".json", ".npz", ".sig", "")


def _commit(root: Path, name: str) -> str | None:
    found = git_output(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.decode().strip() if found else None


def git_output(folder: Path, *arguments: str) -> bytes | None:
    """Output of git, or None if it fails or there is no git."""
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
