"""The documentation's pages: every block is code that runs, every link leads somewhere, each page is in the menu."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import click
import pytest

from ltrobust_bench.cli.main import ltbench, main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
PAGES = [DOCS / f"{name}.md" for name in ("how-to", "protocol", "mistakes", "api", "figures")]
EVERY = sorted(DOCS.glob("*.md"))
LIGHT = ("report", "data")
"""Commands that read what is committed, in seconds; the others train."""


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(path, language="bash"):
    lines = [line.split("#")[0].strip() for block in blocks(path, language) for line in block.splitlines()]
    return [line for line in lines if line.startswith("ltbench ")]


ALL = [(path.stem, line) for path in (*PAGES, TUTORIAL) for line in commands(path) + commands(path, "sh")]


def test_there_is_something_to_run():
    assert len(ALL) > 20 and len(commands(TUTORIAL)) >= 6


@pytest.mark.parametrize(("page", "line"), ALL)
def test_commands_can_be_typed(page, line):
    """Verbs, arguments and options, as far as they can be told without doing what they say."""
    arguments, command, context = shlex.split(line)[1:], ltbench, click.Context(ltbench)
    while isinstance(command, click.Group):
        _, command, arguments = command.resolve_command(context, arguments)
    if arguments:
        command.make_context("ltbench", ["at" if word == "half-prior" else word for word in arguments])


@pytest.mark.parametrize("line", sorted({line for _, line in ALL if line.split()[1] in LIGHT}))
def test_commands_that_read(line, tmp_path, capfd, monkeypatch):
    """In a checkout; what they write goes elsewhere."""
    if "half-prior" in line or "--records runs" in line:
        pytest.skip("of the tutorial, where test_the_tutorial runs it")
    shutil.copytree(ROOT / "results" / "records" / "digits-v0", tmp_path / "results" / "records" / "digits-v0")
    shutil.copytree(ROOT / "results" / "published", tmp_path / "results" / "published")
    monkeypatch.chdir(tmp_path)
    code = main(shlex.split(line)[1:])
    assert code == 0, "\n".join(capfd.readouterr())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_python_runs(path, tmp_path, monkeypatch):
    """Blocks of a page, one after another, beside the lite board's records."""
    lite = Path("results", "records", "ltr-linf-lite-v1")
    shutil.copytree(ROOT / lite, tmp_path / lite)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text("\n".join(blocks(path, "python")), encoding="utf-8")
    run_path(str(tmp_path / "page.py"), run_name="__main__")


def test_the_tutorials_method_is_python():
    for block in blocks(TUTORIAL, "python"):
        ast.parse(block)


@pytest.mark.slow
@pytest.mark.parametrize("path", [TUTORIAL, DOCS / "how-to.md"], ids=lambda path: path.stem)
def test_pages_are_followed_literally(path, tmp_path):
    """Every file that it shows is written, every command is run, in a copy of the checkout."""
    for name in ("ltrobust_bench", "baselines", "results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    program = f"{sys.executable} -m ltrobust_bench"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for language, block in re.findall(r"```(bash|python|toml)\n(.*?)```", path.read_text(), flags=re.DOTALL):
        place = re.match(r"# (baselines/\S+)\n", block)
        if place:
            (tmp_path / place[1]).write_text(block, encoding="utf-8")
        for line in block.splitlines() if language == "bash" else ():
            command = line.split("#")[0].strip()
            if "cifar10-lt" in command and "LTBENCH_DATA" not in os.environ:
                continue
            asked = ["bash", "-c", f'ltbench() {{ {program} "$@"; }}; {command}']
            done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    if path == TUTORIAL:
        assert list(tmp_path.glob("runs/half-prior-digits-lt-*/record.json"))


def test_every_page_is_in_the_menu():
    lines = [line for block in blocks(DOCS / "index.md", r"\{toctree\}") for line in block.splitlines()]
    named = {line for line in lines if line and not line.startswith(":")}
    assert {path.stem for path in EVERY} == {"index", *named}


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path):
    """Files, and headings of them; links into the web are looked at by people."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, heading = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert heading in slugs, link


def test_every_friction_is_held_by_a_test_that_is_there():
    rows = re.findall(r"^\|.*\| `(\S+)::(\w+)` \|$", (DOCS / "frictions.md").read_text(encoding="utf-8"), flags=re.M)
    assert len(rows) > 40
    for name, test in rows:
        assert f"def {test}(" in (ROOT / "tests" / name).read_text(encoding="utf-8"), (name, test)


def test_the_site_is_built_without_a_warning(tmp_path):
    """`make docs`, where its packages are installed."""
    for package in ("sphinx", "myst_parser", "furo", "sphinx_click"):
        pytest.importorskip(package, reason="pip install -e '.[docs]'")
    words = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path / "site"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "half-prior" in (tmp_path / "site" / "tutorial.html").read_text(encoding="utf-8")
