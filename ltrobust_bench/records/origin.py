"""What git knows of the commits that records name: that they exist, hold the method, and are of that version.

Only the project's own checkout, with its whole history, can tell. Elsewhere (an installed package, a shallow clone,
somebody's folder of results) nothing is said of it; of a shallow clone the examination's last line says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records.history import git_output
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.strict import Finding, finding

VERSION = "ltrobust_bench/_version.py"


def repository_of(board: Path) -> tuple[Path | None, str]:
    """The checkout of the project that a folder ``records`` lies in, or None; and why a checkout is of no use."""
    found = git_output(board, "rev-parse", "--show-toplevel")
    root = None if found is None else Path(os.fsdecode(found.rstrip(b"\n")))
    if root is None or not (root / VERSION).is_file():
        return None, ""
    if git_output(root, "rev-parse", "--is-shallow-repository") != b"false\n":
        return None, "commits not looked up: a shallow clone; git fetch --unshallow"
    return root, ""


def wrong_origin(root: Path, record: Record) -> Iterator[Finding]:
    """What git contradicts of a filed record's commits.

    Args:
        root: the project's checkout, with its history.
    """
    env = record.environment
    sessions = [("environment.git_commit", env.git_commit, env.package_version)]
    for i, code in enumerate(env.code):
        sessions.append((f"environment.code.{i}.commit", code.commit, code.package_version))
    for field, commit, version in dict.fromkeys(sessions):
        if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit or ""):
            continue  # another rule's business
        holds = _at(str(root), str(commit))
        if holds is None:
            yield finding(field, "must be a commit of this branch's history", commit)
            continue
        was, folders = holds
        for folder in _folders(record.run):
            if folder not in folders:
                yield finding(field, f"must be a commit that holds baselines/{folder}", commit)
        if was and version != was:
            where = field.rpartition(".")[0] + ".package_version"
            yield finding(where, f"must be {was}, the version at commit {str(commit)[:7]}", version)


def _folders(run: RunSection) -> Sequence[str]:
    return [slug.replace("-", "_") for slug in (run.method, *run.plugins)]


@lru_cache(maxsize=4096)
def _at(root: str, commit: str) -> tuple[str, frozenset[str]] | None:
    """The package's version at a commit and the folders of its methods; None: no commit of this history."""
    place = Path(root)
    if git_output(place, "merge-base", "--is-ancestor", commit, "HEAD") is None:
        return None
    text = (git_output(place, "show", f"{commit}:{VERSION}") or b"").decode(errors="replace")
    version = re.search(r'__version__ = "([^"]+)"', text)
    names = (git_output(place, "ls-tree", "-d", "--name-only", f"{commit}:baselines") or b"").decode(errors="replace")
    return (version[1] if version else ""), frozenset(names.split())
