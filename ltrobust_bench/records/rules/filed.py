"""What a filed record must be besides sound: a full run of committed code, in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ltrobust_bench.plan.code import Code, worst
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.records.rules.case import Case, Findings
from ltrobust_bench.records.strict import Finding, finding

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def place(case: Case) -> Findings:
    """A filed record lies where its run says, so that the same run cannot be filed twice."""
    if case.place is not None and case.place != case.run.record_path():
        yield finding("file", f"must lie at {case.run.record_path()} below the records folder", case.place)


def full(case: Case) -> Findings:
    """No reduced run and no smoke test stands on a board."""
    if case.place is not None:
        yield from _joins_no_board(case.run)


def provenance(case: Case) -> Findings:
    """A filed record names the commit it was made with, and that commit is the whole truth, in all sessions."""
    if case.place is None:
        return
    env = case.record.environment
    yield from _uncommitted(env.git_commit, env.git_dirty)
    if not env.code:  # made before code was recorded
        return
    needed = {"training", "evaluation", *(["base"] if case.run.base_key is not None else [])}
    if (seen := {code.work for code in env.code}) != needed:
        allowed = f"must be of {', '.join(sorted(needed))}, and of nothing else"
        yield finding("environment.code", allowed, ", ".join(sorted(seen)))
    for i, code in enumerate(env.code):
        if not COMMIT.fullmatch(code.commit or ""):
            yield finding(f"environment.code.{i}.commit", "must be a full commit", code.commit)
    yield from _edited(env.code)


def unfit(run: RunSection, code: Sequence[Code]) -> list[str]:
    """Why no board will accept the record of a run, a few words each; asked before its first step.

    Args:
        code: of its sessions so far, this process's last.
    """
    return _words([*_joins_no_board(run), *_uncommitted(code[-1].commit, worst(code)), *_edited(code)])


def unfit_record(case: Case) -> list[str]:
    """Why no board accepts a record, a few words each; other rules tell whether it is sound."""
    return _words([*full(case), *provenance(case)])


def _words(found: list[Finding]) -> list[str]:
    subject = {one: f"{one.field.rpartition('.')[2]} " if one.allowed.startswith("must") else "" for one in found}
    return [f"{subject[one]}{one.allowed} (got {one.seen})" for one in found]


def _joins_no_board(run: RunSection) -> Findings:
    if run.reduced:
        cut = ", ".join(f"{name} {value}" for name, value in run.cuts.items())
        yield finding("status.reduced", "reduced runs join no board", cut)
    if run.protocol in protocols and load_protocol(run.protocol).status == "smoke":
        yield finding("run.protocol", "smoke tests join no board", run.protocol)


def _uncommitted(commit: str | None, dirty: bool | None) -> Findings:
    if not COMMIT.fullmatch(commit or ""):
        yield finding("environment.git_commit", "must be a full commit: run it from a git checkout", commit)
    if dirty is not False:
        allowed = "must be false: commit ltrobust_bench/ and the method's folder, then run it with --fresh"
        if dirty is None:
            allowed = "must be false: a session was not recorded, or not in a git checkout"
        yield finding("environment.git_dirty", allowed, dirty)


def _edited(code: Sequence[Code]) -> Findings:
    """A network is attacked with the head and inference form that it was trained for."""
    seen = {one.method_sha256[:8] for one in code if one.work != "base"}
    if len(seen) > 1:
        allowed = "must have one method_sha256: the method was edited between training and evaluation"
        yield finding("environment.code", allowed, ", ".join(sorted(seen)))
