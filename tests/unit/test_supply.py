"""What the project is built from: locked by hash, and looked at; what cannot be looked up is not called sound."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def supply():
    spec = importlib.util.spec_from_file_location("supply", ROOT / ".github" / "supply.py")
    module = sys.modules["supply"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_requirement_says_what_is_old_enough():
    """Without it `make test-versions` would install a version of long ago, and so might somebody's constraints."""
    asked = PROJECT["dependencies"] + [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    assert len(asked) > 30
    bounds = {text: {specifier.operator for specifier in Requirement(text).specifier} for text in asked}
    assert [text for text, operators in bounds.items() if not operators & {">=", "=="}] == []


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_has_every_package_that_the_project_asks_for_with_its_hashes(supply):
    text = (ROOT / "requirements.lock").read_text()
    found = {canonical(name): version for name, version in supply.locked(text).items()}
    asked = list(PROJECT["dependencies"])
    for extra in ("dev", "robustbench", "supply"):
        asked += PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, asked):
        version = found.get(canonical(requirement.name))
        assert version and requirement.specifier.contains(version, prereleases=True), f"{requirement}: make lock"
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in block for block in blocks if not block.startswith("#"))


def test_workflows_install_the_locked_packages_and_nothing_else():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for line in re.findall(r".*pip install.*", path.read_text()):
            locked = "--require-hashes -r requirements.lock" in line or "--no-deps --no-build-isolation -e ." in line
            assert locked or line.strip().startswith("fresh/bin/pip"), f"{path.name}: {line}"
        assert "INDEX_URL" not in path.read_text()


AUDIT = {"sound": {"name": "sound", "version": "1", "vulns": []}, "gone": {"name": "gone", "skip_reason": "not found"},
         "bad": {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1"}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("packages", "code", "line"),
    [
        (["sound"], 0, "vulnerabilities: none known of 1 packages"),
        (["sound", "gone"], 3, "vulnerabilities: 1 of 2 packages could not be looked up in this network"),
        (["sound", "gone", "bad"], 1, "bad 2: CVE-1"),
        (None, 3, "vulnerabilities: not looked up, pip-audit failed: no route"),
    ],
)
def test_a_package_that_was_not_looked_up_was_not_audited(supply, monkeypatch, capsys, packages, code, line):
    answer = "" if packages is None else json.dumps({"dependencies": [AUDIT[name] for name in packages]})
    licences = json.dumps([{"Name": "torch", "Version": "1", "License": "BSD-3-Clause"}])
    answers = {"pip-audit": (1, answer, "no route\n"), "pip-licenses": (0, licences, ""), "zizmor": (0, "[]", "")}
    monkeypatch.setattr(supply, "run", lambda name, *_: answers[name])
    assert supply.main([]) == code
    out = capsys.readouterr().out.splitlines()
    assert line in out and "licences: 1 packages, 1 licences, 0 unknown" in out


def test_what_zizmor_finds_and_what_is_not_installed_is_said(supply, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(supply.sys, "executable", str(tmp_path / "python"))
    assert supply.run("zizmor")[0] == 127 and supply.main([]) == 1
    assert "zizmor is not installed: pip install -e '.[supply]'" in capsys.readouterr().out
    finding = json.dumps([{"ident": "template-injection", "desc": "code injection"}])
    monkeypatch.setattr(supply, "run", lambda name, *_: (13, finding, ""))
    assert supply.workflows() == (1, ["workflows: template-injection: code injection"])
