"""What a pull request adds to the benchmark, what is wrong with it, and what the board would look like.

    python .github/submission.py --base origin/main --summary submission/summary.md

Sorts the files changed since the base into records, methods and published numbers, runs ``ltbench record validate``,
``ltbench check``, ``ltbench report published`` and ``ltbench report changes`` on them, and writes what they found as
Markdown. Its first line names what decides over all records, if the pull request changes any of it. Statements about
records are a maintainer's: with ``--by-maintainer`` they are computed again, without it they are refused. Exit codes:
0 nothing wrong, 1 problems.

Standard library only: the workflow runs the base branch's copy, so a pull request cannot change its own rules. What it
quotes from the pull request (paths, messages, output of contributed code) is made harmless first.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RECORDS = "results/records/"
STATEMENTS = ("results/retractions/", "results/verifications/")
"""About records; they are examined with the folder of records that they speak of."""
PUBLISHED = "results/published/"
SHIPPED = ("results/extra/", "results/weights/")
"""Come with the package: what runs were trained with, and networks."""
KEYS = "results/signers"
CONTRIBUTED = (RECORDS, *STATEMENTS, PUBLISHED, *SHIPPED, KEYS)
"""What people add below results/; the rest is generated on main."""
DECIDES = (
    ("protocol", ("ltrobust_bench/protocol/",)),
    ("known digests", ("ltrobust_bench/data/known", "tests/pinned.json", "tests/unit/test_pinned.py")),
    ("signers", (KEYS,)),
    ("workflows", (".github/",)),
    ("locked packages", ("requirements.lock",)),
    ("rules and statements", ("ltrobust_bench/records/", *STATEMENTS)),
    ("how boards are made", ("ltrobust_bench/report/", "ltrobust_bench/scores/")),
    ("attacks and evaluation", ("ltrobust_bench/attacks/", "ltrobust_bench/evaluation/", "ltrobust_bench/compute/")),
    (
        "who judges",
        ("ltrobust_bench/judge/", "ltrobust_bench/verbs/", "ltrobust_bench/cli/", "ltrobust_bench/interrupt.py"),
    ),
    ("networks, data and plans", ("ltrobust_bench/models/", "ltrobust_bench/data/", "ltrobust_bench/plan/")),
    ("training", ("ltrobust_bench/training/", "ltrobust_bench/longtail/", "ltrobust_bench/executors/")),
    (
        "how files are read",
        (
            "ltrobust_bench/reading.py",
            "ltrobust_bench/files.py",
            "ltrobust_bench/terms.py",
            "ltrobust_bench/interop/examples.py",
        ),
    ),
    (
        "what all of it stands on",
        (
            "ltrobust_bench/api.py",
            "ltrobust_bench/cards.py",
            "ltrobust_bench/registry.py",
            "ltrobust_bench/numbers.py",
            "ltrobust_bench/randomness.py",
        ),
    ),
)
"""What decides over every record, by the beginnings of paths. Cards that change `ranked` are found by their lines."""
RECOMPUTED = 3
"""Statements that are computed again, drawn at random; each trains or attacks a network."""
SHOWN = 40
"""Problems that are listed; the others are counted."""
LONGEST = 50_000
"""Characters of the summary; a comment holds 65,536."""
PATIENCE = 1200
"""Seconds for one command."""


@dataclass(frozen=True)
class Change:
    """A file that differs from the base: ``status`` is git's letter (A, M, D, T)."""

    status: str
    path: str


@dataclass
class Task:
    """What to run, and what is wrong before anything is run.

    Attributes:
        records: files and folders for ``ltbench record validate``.
        statements: whether statements about records are among them.
        decides: what of the things that decide over all records is changed.
        methods: slugs for ``ltbench check``.
        published: whether to read the published numbers.
        problems: one line each.
    """

    records: list[str] = field(default_factory=list)
    statements: bool = False
    decides: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    published: bool = False
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a command found: a heading, problems as lines, and its output."""

    title: str
    problems: list[str]
    output: str = ""


def parse_changes(listing: str) -> list[Change]:
    """The output of ``git diff --name-status --no-renames -z``."""
    words = listing.split("\0")[:-1]
    return [Change(status[:1], path) for status, path in zip(words[::2], words[1::2], strict=True)]


def sort_out(changes: Sequence[Change], ranked: Sequence[str] = (), owners: str = "") -> Task:
    """Which records and methods changed, and which changes no pull request makes.

    Args:
        ranked: cards in which the line `ranked` changes.
        owners: who may make statements; empty: whoever asks is one of them.
    """
    task = Task(published=any(change.path.startswith(PUBLISHED) for change in changes))
    task.decides = [name for name, begins in DECIDES if any(change.path.startswith(begins) for change in changes)]
    task.decides += ["ranked"] if ranked else []
    said = [change.path for change in changes if change.path.startswith((*STATEMENTS, KEYS))]
    task.statements = any(path.startswith(STATEMENTS) for path in said)
    if said and owners:
        more = f" and {len(said) - 1} more" if len(said) > 1 else ""
        task.problems.append(f"{said[0]}{more}: statements about records and keys are made by {owners}; open an issue")
    folders: dict[str, None] = {}
    elsewhere = [c.path for c in changes if not c.path.startswith("results/")]
    for path in (change.path for change in changes):
        if path.startswith(RECORDS):
            if not path.endswith(".json"):
                task.problems.append(f"{path}: only JSON files lie below results/records")
            task.records.append(path)
        elif path.startswith("results/") and not path.startswith(CONTRIBUTED):
            task.problems.append(f"{path} is generated on main; leave it out of the pull request")
        elif path.startswith("baselines/"):
            folders[path.split("/")[1]] = None
    if task.records or any(c.path.startswith(STATEMENTS) for c in changes):
        # With those that are there: a copy of one of them under another seed is sound by itself.
        task.records.insert(0, RECORDS.rstrip("/"))
    if task.records and elsewhere:
        task.problems.append(
            f"records come in a pull request of their own, and this one also changes {elsewhere[0]}"
            + (f" and {len(elsewhere) - 1} more" if len(elsewhere) > 1 else "")
        )
    for folder in folders:
        if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", folder):
            task.methods.append(folder.replace("_", "-"))
        else:
            task.problems.append(f"baselines/{folder}: a method's folder is its slug with underscores")
    return task


def card_of(slug: str) -> str:
    """Where a method's card lies."""
    return f"baselines/{slug.replace('-', '_')}/card.toml"


def look_at_card(slug: str, root: Path) -> list[str]:
    """What a reader of the card still misses."""
    card = card_of(slug)
    if not (root / card).is_file():
        return [f"{card} is missing; a method has a card, and records that name it need it"]
    left = sum("TODO" in line for line in (root / card).read_text(encoding="utf-8", errors="replace").splitlines())
    return [f"{card} still says TODO in {left} line{'s' if left > 1 else ''}"] if left else []


def run(command: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, output and errors; a command that does not end in time has exit code 124."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return 124, "", f"it was stopped after {PATIENCE} seconds"
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def validate(paths: Sequence[str], base: str) -> Outcome:
    """``ltbench record validate`` on what changed."""
    code, out, err = run(["ltbench", "record", "validate", "--json", "--against", base, "--", *paths])
    try:
        report = json.loads(out)
        problems = [f"{p['path']}: {p['field']}: {p['allowed']} (got {p['seen']})" for p in report["problems"]]
        title = f"Records: {int(report['records'])} examined"
    except (ValueError, KeyError, TypeError):
        problems, title = [last_line(err) or f"`ltbench record validate` ended with code {code}"], "Records"
    if code and not problems:
        problems = [f"`ltbench record validate` ended with code {code}"]
    return Outcome(title, problems)


def check(slug: str, root: Path) -> Outcome:
    """``ltbench check`` on a method."""
    title, problems = f"Method {slug}", look_at_card(slug, root)
    if not (root / card_of(slug)).is_file():
        return Outcome(title, problems)
    code, out, err = run(["ltbench", "check", slug])
    if code:
        problems.append(last_line(out if code == 1 and out else err) or f"`ltbench check` ended with code {code}")
    return Outcome(title, problems, out)


def published() -> Outcome:
    """``ltbench report published``, whose errors name file and line."""
    code, out, err = run(["ltbench", "report", "published", "--format", "csv"])
    problems = [line for line in err.splitlines() if line.strip()] if code else []
    if code and not problems:
        problems = [f"`ltbench report published` ended with code {code}"]
    return Outcome(f"Published numbers: {max(0, len(out.splitlines()) - 1)} read", problems)


def board(base: str) -> Outcome:
    """``ltbench report changes``: which ranks change, by how much, and why."""
    code, out, err = run(["ltbench", "report", "changes", "--against", base])
    problems = [last_line(err) or f"`ltbench report changes` ended with code {code}"] if code else []
    return Outcome("What the board would look like", problems, out)


def recheck(base: str) -> Outcome:
    """``ltbench record recheck``: a sample of the statements that are new, computed again."""
    command = ["ltbench", "record", "recheck", "--against", base, "--sample", str(RECOMPUTED), "--threads", "1"]
    code, out, err = run(command)
    lines = [line for line in out.splitlines() if line.strip()]
    problems = [line for line in lines[:-1] if not line.endswith(": holds")] if code == 1 else []
    if code and not problems:
        problems = [last_line(err) or f"`ltbench record recheck` ended with code {code}"]
    return Outcome("Statements computed again", problems, out)


def owners_of_statements(base: str) -> str:
    """Who may make statements, as the base branch's CODEOWNERS says."""
    code, out, _ = run(["git", "show", f"{base}:.github/CODEOWNERS"])
    for line in out.splitlines() if code == 0 else []:
        words = line.split()
        if words and words[0].strip("/") == STATEMENTS[1].strip("/"):
            return " ".join(words[1:]).replace("@", "")
    return "maintainers"


def cards_that_change_ranked(base: str, changes: Sequence[Change]) -> list[str]:
    """Cards whose line `ranked` is added, taken away or changed."""
    found = []
    for change in changes:
        if re.fullmatch(r"baselines/[^/]+/card\.toml", change.path):
            versions = [run(["git", "show", f"{commit}:{change.path}"])[1] for commit in (base, "HEAD")]
            lines = [re.findall(r"^\s*ranked\s*=.*$", text, flags=re.MULTILINE) for text in versions]
            found += [change.path] if lines[0] != lines[1] and change.status != "A" else []
    return found


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def harmless(text: str, longest: int = 300) -> str:
    """``text`` on one line, without what Markdown or a terminal would act on."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    for special, instead in (("`", "'"), ("~", "-"), ("@", "(at)")):
        plain = plain.replace(special, instead)
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def summary(problems: Sequence[str], outcomes: Sequence[Outcome], decides: Sequence[str] = ()) -> str:
    """What was found, as Markdown that reads as plain text too.

    Args:
        decides: what of the things that decide over all records is changed; the first line names it.
    """
    count = len(problems) + sum(len(outcome.problems) for outcome in outcomes)
    verdict = "Nothing wrong was found." if not count else f"{count} problem{'s' if count > 1 else ''}."
    if not problems and not outcomes:
        verdict = "No record, no method and no published number was changed."
    lines = ["# Submission", "", verdict]
    if decides:
        lines.insert(0, f"CHANGES WHAT DECIDES OVER ALL RECORDS: {', '.join(decides)}. A maintainer must want that.\n")
    for outcome in [Outcome("Files", list(problems)), *outcomes] if problems else outcomes:
        lines += ["", f"## {outcome.title}", ""]
        lines += [f"- `{harmless(problem)}`" for problem in outcome.problems[:SHOWN]] or ["- nothing wrong"]
        if len(outcome.problems) > SHOWN:
            lines.append(f"- and {len(outcome.problems) - SHOWN} more")
        if outcome.output.strip():
            lines += ["", *(f"    {harmless(line)}" for line in outcome.output.splitlines()[:SHOWN])]
    if count:
        lines += ["", "CONTRIBUTING.md says how to run the same checks at home."]
    text = "\n".join(lines) + "\n"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n(cut)\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the checkout in the working directory."""
    parser = argparse.ArgumentParser(description="Examine what a pull request adds to the benchmark.")
    parser.add_argument("--base", required=True, help="commit that the pull request goes to, e.g. origin/main")
    parser.add_argument("--summary", required=True, type=Path, help="Markdown file to write")
    parser.add_argument("--by-maintainer", action="store_true", help="whoever proposes it may make statements")
    given = parser.parse_args(arguments)
    compared = ["git", "diff", "--name-status", "--no-renames", "--no-ext-diff", "-z", f"{given.base}...HEAD", "--"]
    code, out, err = run(compared)
    if code:
        print(f"git diff failed: {last_line(err)}", file=sys.stderr)
        return 2
    changes = parse_changes(out)
    owners = "" if given.by_maintainer else owners_of_statements(given.base)
    task = sort_out(changes, cards_that_change_ranked(given.base, changes), owners)
    outcomes = [validate(task.records, given.base)] if task.records else []
    outcomes += [recheck(given.base)] if task.statements and given.by_maintainer else []
    outcomes += [check(slug, Path.cwd()) for slug in task.methods]
    outcomes += [published()] if task.published else []
    if run(["git", "cat-file", "-e", f"{given.base}:results/leaderboard.csv"])[0] == 0:
        outcomes.append(board(given.base))
    text = summary(task.problems, outcomes, task.decides)
    given.summary.parent.mkdir(parents=True, exist_ok=True)
    given.summary.write_text(text, encoding="utf-8")
    print(text)
    return 1 if task.problems or any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
