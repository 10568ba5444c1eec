"""Git commands that make a pull request of some files, and of nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from ltrobust_bench.records.history import git_output


def base_of(folder: Path) -> str:
    """The branch that a checkout's pull requests go to, ``upstream/main`` or ``origin/main``, as its remote calls it;
    empty: there is no remote."""
    remotes = (git_output(folder, "remote") or b"").decode(errors="replace").split()
    for remote in ("upstream", "origin"):
        if remote in remotes:
            head = git_output(folder, "symbolic-ref", "--short", f"refs/remotes/{remote}/HEAD")
            return head.decode(errors="replace").strip() if head else f"{remote}/main"
    return ""


def commands(branch: str, paths: Sequence[Path], message: str, base: str) -> list[str]:
    """What to type so that files become a pull request.

    A branch of what one happens to be on would bring its other commits along, and an examination that reads records
    and code in one pull request refuses both; so it begins at the base.

    Args:
        branch: its name.
        paths: the files and folders that it adds, as seen from where the commands are typed.
        message: of the commit.
        base: see :func:`base_of`.
    """
    begun = [["git", "fetch", base.partition("/")[0]]] if base else []
    return [
        shlex.join(command)
        for command in (
            *begun,
            ["git", "switch", "--create", branch, *(["--no-track", base] if base else [])],
            ["git", "add", *map(str, paths)],
            ["git", "commit", "--message", message],
            ["git", "push", "--set-upstream", "origin", branch],
        )
    ]


def left_behind(commits: Iterable[str | None], base: str, folder: Path) -> list[str]:
    """Commits that the base does not have: records that name them are refused there. Empty if nobody can tell."""
    if not base or git_output(folder, "rev-parse", "--verify", "--quiet", base) is None:
        return []
    known = [commit for commit in dict.fromkeys(commits) if commit]
    return [commit for commit in known if git_output(folder, "merge-base", "--is-ancestor", commit, base) is None]
