"""Looks at what the project is made of: vulnerabilities and licences of the locked packages, and workflows.

    python .github/supply.py [--licences licences.md]        # `make audit`

Prints a line for each and says what could not be looked at: a package that the vulnerability service does not know here
was not audited. Exit codes: 0 nothing wrong, 1 something is, 3 the network does not allow to look.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
UNKNOWN = "UNKNOWN"


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    """A tool beside this Python: exit code, output and errors."""
    tool = Path(sys.executable).with_name(name)
    if not tool.exists():
        return 127, "", f"{name} is not installed: pip install -e '.[supply]'"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout, done.stderr


def locked(text: str) -> dict[str, str]:
    """Versions by name in a file of locked packages."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", text, flags=re.MULTILINE))


def vulnerabilities() -> tuple[int, list[str]]:
    """Known vulnerabilities of the locked packages."""
    code, out, err = run("pip-audit", "--require-hashes", "--disable-pip", "-r", str(LOCK), "-f", "json")
    try:
        found = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (err.strip().splitlines() or [f"exit code {code}"])[-1]
        return 3, [f"vulnerabilities: not looked up, pip-audit failed: {reason[:200]}"]
    skipped = [each["name"] for each in found if "skip_reason" in each]
    lines = [f"{each['name']} {each['version']}: {hit['id']}" for each in found for hit in each.get("vulns", [])]
    if skipped:
        lines.append(f"vulnerabilities: {len(skipped)} of {len(found)} packages could not be looked up in this network")
    if not lines:
        lines = [f"vulnerabilities: none known of {len(found)} packages"]
    bad = any(each.get("vulns") for each in found)
    return (1 if bad else 3 if skipped else 0), lines


def licences(report: Path | None) -> tuple[int, list[str]]:
    """Licences of the locked packages that are installed here."""
    code, out, err = run("pip-licenses", "--format", "json", "--python", sys.executable)
    try:
        names = {name.lower().replace("_", "-") for name in locked(LOCK.read_text())}
        rows = [r for r in json.loads(out) if r["Name"].lower().replace("_", "-") in names]
    except (ValueError, KeyError, TypeError):
        return 1, [f"licences: pip-licenses failed: {(err.strip().splitlines() or [code])[-1]}"]
    if report is not None:
        table = [f"| {r['Name']} | {r['Version']} | {r['License']} |" for r in rows]
        report.write_text("\n".join(["| package | version | licence |", "| --- | --- | --- |", *table]) + "\n")
    unknown = [r["Name"] for r in rows if r["License"] == UNKNOWN]
    kinds = Counter(r["License"].splitlines()[0][:60] for r in rows)
    said = f"licences: {len(rows)} packages, {len(kinds)} licences, {len(unknown)} unknown"
    return 0, [said + (f" ({', '.join(unknown)})" if unknown else "")]


def workflows() -> tuple[int, list[str]]:
    """What zizmor finds in the workflows."""
    code, out, err = run("zizmor", "--offline", "--quiet", "--no-progress", "--format", "json", ".github/workflows")
    try:
        found = json.loads(out)
    except ValueError:
        return 1, [f"workflows: zizmor failed: {(err.strip().splitlines() or [code])[-1]}"]
    lines = [f"workflows: {each['ident']}: {each['desc']}" for each in found]
    return (1 if lines else 0), lines or ["workflows: zizmor finds nothing"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at all of it."""
    parser = argparse.ArgumentParser(description="Look at packages, licences and workflows.")
    parser.add_argument("--licences", type=Path, metavar="FILE", help="also write a table of licences")
    given = parser.parse_args(arguments)
    found = [vulnerabilities(), licences(given.licences), workflows()]
    for _, lines in found:
        print("\n".join(lines))
    codes = [code for code, _ in found]
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
