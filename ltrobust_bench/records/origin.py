"""What git knows of the commits that records name: that they exist, hold the method, are of that version, and hold the
code whose digests the record states.

Only the project's own checkout, with its whole history, can tell. Elsewhere (an installed package, a shallow clone,
somebody's folder of results) nothing is said of it; of a shallow clone the examination's last line says so.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records.history import git_output
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.strict import Finding, finding
from ltrobust_bench.terms import canonical_digest

VERSION, CODE = "ltrobust_bench/_version.py", "ltrobust_bench/plan/code.py"


def repository_of(board: Path) -> tuple[Path | None, str]:
    """The checkout of the project that a folder ``records`` lies in, or None; and why a checkout is of no use."""
    found = git_output(board, "rev-parse", "--show-toplevel")
    root = None if found is None else Path(os.fsdecode(found.rstrip(b"\n")))
    if root is None or not (root / VERSION).is_file():
        return None, ""
    if git_output(root, "rev-parse", "--is-shallow-repository") != b"false\n":
        return None, "commits not looked up: a shallow clone; git fetch --unshallow"
    return root, ""


def wrong_origin(root: Path, record: Record, *, new: bool = False) -> Iterator[Finding]:
    """What git contradicts of a filed record's commits.

    Args:
        root: the project's checkout, with its history.
        new: whether it is just being added; only what is there already may be from before code was recorded.
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
    if new and not env.code:
        yield finding("environment.code", "must be there: every run records the code that it was made with", "nothing")
    yield from _other_code(root, record)


def _other_code(root: Path, record: Record) -> Iterator[Finding]:
    """Digests of code that are not those of the commit beside them. What another run is built on is of another method,
    whose digest is that run's."""
    for i, code in enumerate(record.environment.code):
        held = _files_at(str(root), code.commit) if code.commit and code.dirty is False else None
        if held is None:
            if code.commit and code.dirty is False and _at(str(root), code.commit) is not None:
                allowed = "must be a commit at which digests of code are taken, as are stated here"
                yield finding(f"environment.code.{i}.commit", allowed, code.commit)
            continue
        methods = [held.method(folder) for folder in _folders(record.run)]
        expected = {"package_sha256": held.package("training" if code.work == "base" else code.work)}
        expected |= {} if code.work == "base" else {"method_sha256": canonical_digest(methods)}
        for name, digest in expected.items():
            if getattr(code, name) != digest:
                says = f"must be {digest}, of the files at commit {code.commit[:7]}"  # type: ignore[index]
                yield finding(f"environment.code.{i}.{name}", says, getattr(code, name))


@dataclass(frozen=True)
class Files:
    """The code at a commit, as :mod:`ltrobust_bench.plan.code` takes digests of it.

    Attributes:
        digests: SHA-256 (hex) of each file by its path.
        around: rooms of the package that were no part of what computes, then.
    """

    digests: Mapping[str, str]
    around: tuple[str, ...]

    def method(self, folder: str) -> str:
        """Digest of a method's or plug-in's folder."""
        return canonical_digest(dict(self._below(f"baselines/{folder}/")))

    def package(self, work: str) -> str:
        """Digest of the package, as far as it computes this work."""
        left_out = {*self.around, *(["evaluation"] if work == "training" else [])}
        code = self._below("ltrobust_bench/")
        return canonical_digest({n: d for n, d in code if n.endswith(".py") and n.split("/")[0] not in left_out})

    def _below(self, folder: str) -> list[tuple[str, str]]:
        return [(path.removeprefix(folder), d) for path, d in self.digests.items() if path.startswith(folder)]


@lru_cache(maxsize=256)
def _files_at(root: str, commit: str) -> Files | None:
    """The code at a commit; None: no such commit, or one at which code was not taken digests of."""
    packed = git_output(Path(root), "archive", "--format=tar", commit, "--", "ltrobust_bench", "baselines")
    if packed is None:
        return None
    digests, around = {}, None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            file, name = archive.extractfile(member) if member.isfile() else None, member.name
            if file is None or not name.endswith((".py", "/card.toml")):
                continue
            content = file.read()
            digests[name] = hashlib.sha256(content).hexdigest()
            if name == CODE:
                around = re.search(r"^AROUND = (\([^)]*\))", content.decode(errors="replace"), flags=re.MULTILINE)
    return Files(digests, literal_eval(around[1])) if around else None


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
