"""Which code computes a run: commit, uncommitted changes, and digests of the code that decides what comes out.

Asked once per process and remembered, since a process keeps the code that it has loaded, whatever happens to the files.
Imports no torch.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from ltrobust_bench._version import __version__
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.run import RunSection, Sha256, Text
from ltrobust_bench.terms import Strict, canonical_digest

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent
AROUND = (
    "baselines",
    "cli",
    "contribute",
    "doctor",
    "executors",
    "interop",
    "judge",
    "records",
    "report",
    "sweeps",
    "tracking",
    "verbs",
)
"""Rooms that cannot change a number of a run: they arrange, file and show. A room that is new counts until it is listed
here. Baselines have a digest of their own, so that an edit of one method leaves the runs of all others alone."""
Work = Literal["base", "training", "evaluation"]


class Code(Strict):
    """The code of one session of work. An edited comment is an edit: digests are of files, byte for byte."""

    work: Work = Field(description="base: training of the run that this one builds on")
    package_version: Text
    commit: Text | None = Field(description="none: installed without its git checkout")
    dirty: bool | None = Field(description="whether package, method or plug-ins differed from the commit")
    method_sha256: Sha256 = Field(description="card.toml and *.py of the method and its plug-ins")
    package_sha256: Sha256 = Field(description="*.py of the package, as far as this work is computed by it")


def code_of(run: RunSection, work: Literal["training", "evaluation"]) -> Code:
    """The code that this process computes a run with.

    Attacks and what measures them (``evaluation/``) are no part of training, so an edit there leaves trainings alone.

    Example:
        >>> from ltrobust_bench.plan.make import make_plan
        >>> code_of(make_plan("at", "digits-lt").run, "training").work
        'training'
    """
    entries = [methods.get(run.method), *map(plugins.get, run.plugins)]
    folders = tuple(entry.folder for entry in entries)
    commit, dirty = _in_git(folders)
    return Code(
        work=work,
        package_version=__version__,
        commit=commit,
        dirty=dirty,
        method_sha256=canonical_digest([_digest(folder, ("card.toml", "*.py")) for folder in folders]),
        package_sha256=package_sha256(work),
    )


def package_sha256(work: Literal["training", "evaluation"]) -> str:
    """Digest (hex) of the package's code, as far as it computes this work."""
    left_out = frozenset([*AROUND, "evaluation"] if work == "training" else AROUND)
    return _digest(PACKAGE, ("*.py",), left_out)


@cache
def _digest(folder: Path, patterns: tuple[str, ...], left_out: frozenset[str] = frozenset()) -> str:
    """Digest of the files below a folder that match, by name; without some of its subfolders."""
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in folder.rglob(pattern)
        if path.relative_to(folder).parts[0] not in left_out
    }
    return canonical_digest(found)


def package_commit() -> tuple[str | None, bool | None]:
    """The checkout's commit, and whether the package differs from it; None without a checkout."""
    return _in_git(())


@cache
def _in_git(folders: tuple[Path, ...]) -> tuple[str | None, bool | None]:
    """The checkout's commit, and whether the package or one of the folders differs from it; None without a checkout.

    Files that git does not know count there, ignored code too; files elsewhere do not. A folder of somebody else's
    package counts if it lies in a checkout of its own; an installed package is known by its digest.
    """
    commit = _git(CHECKOUT, "rev-parse", "HEAD") if (CHECKOUT / "pyproject.toml").is_file() else None
    if commit is None:
        return None, None
    return commit.strip(), any(map(_differs, {PACKAGE, *folders}))


def _differs(folder: Path) -> bool:
    """Whether a folder differs from the commit of the checkout that it lies in."""
    asked = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"]
    if folder.is_relative_to(CHECKOUT) and "site-packages" not in folder.parts:
        asked.append("--ignored")
    found = _git(folder, *asked, "--", ".") or ""
    return any(not line.startswith("!!") or line.endswith((".py", ".toml")) for line in found.split("\0") if line)


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git, or None if it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "--no-optional-locks", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def code_now(plan: Plan) -> dict[Work, Code]:
    """The code that this process would do each work of a run with, its base's training included."""
    now: dict[Work, Code] = {work: code_of(plan.run, work) for work in ("training", "evaluation")}
    return now if plan.base is None else now | {"base": code_of(plan.base.run, "training")}


def refuse_other_code(plan: Plan, folder: Path, then: Sequence[Code]) -> None:
    """See that what lies in a run folder was trained by the code that would train it now; the commit may be another,
    as long as the files are the same.

    Raises:
        CheckpointError: naming the folder, what differs, and what to type.
    """
    now = code_now(plan)
    for code in then:
        found = difference(code, now.get(code.work, code))
        if found:
            whose = "the run it builds on" if code.work == "base" else "it"
            raise CheckpointError(
                f"{folder}: {whose} was trained by other code: {found}; restore that code, begin again with "
                f"--method {plan.run.method} --fresh, or raise `version` in the card, which makes it another run."
            )


def difference(then: Code, now: Code) -> str:
    """Which code differs, with its old and new digest; empty: none. The commit may differ."""
    parts = (
        ("folder of the method or a plug-in", then.method_sha256, now.method_sha256),
        ("package", then.package_sha256, now.package_sha256),
    )
    found = ", ".join(f"{what} {old[:8]}, now {new[:8]}" for what, old, new in parts if old != new)
    made = f"commit {then.commit[:7]}" if then.commit else f"version {then.package_version}"
    return found and f"{found} (then {made}{' with uncommitted changes' if then.dirty else ''})"


def joined(earlier: Sequence[Code], later: Sequence[Code]) -> list[Code]:
    """Each code once, in the order of the sessions; the present one last."""
    return [*(code for code in earlier if code not in later), *later]


def worst(codes: Sequence[Code]) -> bool | None:
    """Whether anything was computed by uncommitted code: dirty once is dirty; None: not known of all, or no training is
    among it, which was then done before code was recorded."""
    if any(code.dirty for code in codes):
        return True
    known = all(code.dirty is False for code in codes) and any(code.work == "training" for code in codes)
    return False if known else None
