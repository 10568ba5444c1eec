"""``ltbench new``: what it writes passes the check once its one function is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from command_line import call, refused

from ltrobust_bench import baselines
from ltrobust_bench.api import Method
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.models.registry import models
from ltrobust_bench.registry import Registration

ROOT = Path(__file__).resolve().parents[2]

HOLE = 'raise NotImplementedError("the loss of my-loss is not written yet: see method.py")'


def read_again(monkeypatch):
    """Registries as a new process would read them."""
    for registry in (methods, plugins, datasets, models):
        monkeypatch.setattr(registry, "_entries", {})
        monkeypatch.setattr(registry, "_complete", False)


def say_what_it_is(card):
    card.write_text(card.read_text().replace("TODO", "A sentence"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty checkout's folder, beside the real methods."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "baselines"
    monkeypatch.setattr(baselines, "CHECKOUT", folder)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(folder)])
    folder.mkdir()
    read_again(monkeypatch)
    yield folder
    for name in [n for n in sys.modules if n.startswith("ltrobust_bench.baselines.my_loss")]:
        del sys.modules[name]


def test_the_folder_passes_the_check_once_its_function_is_written(checkout, monkeypatch, capsys):
    code, out, _ = call(capsys, "new", "method", "my-loss")
    method = checkout / "my_loss" / "method.py"
    assert code == 0 and f"1. write the function `loss` in {method}" in out
    assert sorted(p.name for p in checkout.glob("my_loss/*")) == ["card.toml", "method.py"]
    assert (checkout.parent / "tests" / "maths" / "test_my_loss.py").exists()
    read_again(monkeypatch)

    code, out, err = call(capsys, "check", "my-loss")
    assert code == 1 and "Traceback" not in out + err
    assert "FAIL trains two epochs\n       NotImplementedError: the loss of my-loss is not written yet" in out
    assert "ok   options agree with the card" in out

    text = method.read_text()
    assert text.count(HOLE) == 1
    method.write_text(text.replace(HOLE, "return F.cross_entropy(outputs.adversarial.logits, y)"))
    for name in [n for n in sys.modules if n.startswith("ltrobust_bench.baselines.my_loss")]:
        del sys.modules[name]
    code, out, _ = call(capsys, "check", "my-loss")
    failed = [line for line in out.splitlines() if not line.startswith("ok ")]
    assert code == 1 and failed[0] == "FAIL card is complete" and len(failed) == 3
    assert failed[1] == ("       card.toml still says TODO in lines 4, 7, 8, 13, 14, 15, 18: write what belongs there")
    say_what_it_is(method.with_name("card.toml"))
    read_again(monkeypatch)
    assert call(capsys, "check", "my-loss")[0] == 0
    ours = ["--line-length=120", "--config", 'lint.isort.known-first-party=["ltrobust_bench"]']
    for lint in (["check", "--select=E,F,I,UP,B,SIM,RET,PTH"], ["format", "--check"]):
        files = [method, *checkout.parent.glob("tests/maths/*.py")]
        done = subprocess.run([sys.executable, "-m", "ruff", *lint, *ours, *files], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode()


def test_the_scaffold_names_every_part(checkout, capsys):
    call(capsys, "new", "method", "my-loss")
    text = (checkout / "my_loss" / "method.py").read_text()
    assert all(f"{field.name}=" in text for field in fields(Method))


def test_outside_a_checkout_it_is_a_package_that_can_be_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "CHECKOUT", None)
    assert "add --output DIR" in refused(capsys, "new", "method", "my-loss")
    assert list(tmp_path.iterdir()) == []

    code, out, _ = call(capsys, "new", "method", "my-loss", "--output", "mine")
    assert code == 0 and "pip install -e mine" in out
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", "site", "./mine"], check=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    read_again(monkeypatch)
    assert "from ltbench-my-loss 0.1.0:\n  my-loss            My loss (TODO" in call(capsys, "list", "methods")[1]
    assert "not written yet" in call(capsys, "check", "my-loss")[1]
    assert "my-loss is taken by ltbench-my-loss 0.1.0" in refused(capsys, "new", "method", "my-loss")


def test_a_second_method_in_a_package_leaves_its_project_file_alone(tmp_path, capsys):
    call(capsys, "new", "method", "my-loss", "--output", tmp_path)
    before = (tmp_path / "pyproject.toml").read_bytes()
    code, out, _ = call(capsys, "new", "method", "other-loss", "--output", tmp_path)
    assert code == 0 and (tmp_path / "pyproject.toml").read_bytes() == before
    assert f"in {tmp_path / 'pyproject.toml'} add ltbench_other_loss to the packages, and register it:" in out
    lines = out.partition("register it:\n\n")[2].partition("\n\n")[0]
    # TOML has a table once: what is to be added must fit below what is there.
    added = tomllib.loads(before.decode() + lines)["project"]["entry-points"]["ltrobust_bench.methods"]
    assert added == {"my-loss": "ltbench_my_loss", "other-loss": "ltbench_other_loss"}


def test_a_method_in_a_package_without_methods_gets_the_whole_table(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    code, out, _ = call(capsys, "new", "method", "my-loss", "--output", tmp_path)
    lines = out.partition("register it:\n\n")[2].partition("\n\n")[0]
    assert code == 0 and tomllib.loads(lines) == {
        "project": {"entry-points": {"ltrobust_bench.methods": {"my-loss": "ltbench_my_loss"}}}
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My_Loss", "write for instance my-loss"),
        ("Reat!", "write for instance reat-2"),
        ("../../etc", "write for instance etc"),
        ("my--loss", "write for instance my-loss"),
        ("", "small letters and digits"),
        ("émile", "small letters"),
        ("my-loss\n", "small letters"),
        ("reat", "reat is taken by baselines/reat/card.toml; take another name, for instance reat-2"),
        ("awp", "awp is taken by baselines/awp/card.toml"),
        ("x" * 300, "File name too long"),
    ],
)
def test_names_that_are_refused(checkout, capsys, name, says):
    assert says in refused(capsys, "new", "method", name)
    assert list(checkout.iterdir()) == []


def test_nothing_is_overwritten(checkout, capsys):
    (checkout / "my_loss").mkdir()
    (checkout / "my_loss" / "notes.txt").write_text("mine")
    assert "never overwritten; take another name" in refused(capsys, "new", "method", "my-loss")
    assert [p.name for p in checkout.rglob("*.*")] == ["notes.txt"]


def test_a_method_with_a_plug_in_a_data_set_and_a_network_in_a_package_of_ones_own(tmp_path, monkeypatch, capsys):
    code, out, _ = call(
        capsys, "new", "method", "my-loss", "--output", tmp_path, *("--with", "plugin"), *("--with", "data"),
        *("--with", "model"),
    )  # fmt: skip
    assert code == 0 and "git" not in out
    for name, function in (("method", "loss"), ("plugin/method", "attack_budget"), ("data", "read"), ("net", "my_lo")):
        assert re.search(rf"write the function `{function}.*` in .*ltbench_my_loss/{name}.py", out), name
    points = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points == {
        "ltrobust_bench.methods": {"my-loss": "ltbench_my_loss", "my-loss-plugin": "ltbench_my_loss.plugin"},
        "ltrobust_bench.datasets": {"my-loss-data": "ltbench_my_loss.data:MY_LOSS_DATA"},
        "ltrobust_bench.models": {"my-loss-net": "ltbench_my_loss.net:my_loss_net"},
    }
    # Found as any installed package, they say in one line what is not written yet.
    info = tmp_path / "ltbench_my_loss-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ltbench-my-loss\nVersion: 0.1.0\n")
    tables = (f"[{table}]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items()) for table, lines in points.items())
    (info / "entry_points.txt").write_text("".join(tables))
    for name in [n for n in sys.modules if n.partition(".")[0] == "ltbench_my_loss"]:  # another test's
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    read_again(monkeypatch)
    wrapped = ("run", "--method", "my-loss", "--plugin", "my-loss-plugin", "--protocol", "smoke")
    assert "the images of my-loss-data are not read yet" in refused(capsys, *wrapped, "--dataset", "my-loss-data")
    unwritten = refused(capsys, *wrapped, "--dataset", "digits-lt", "--model", "my-loss-net")
    assert "the network my-loss-net is not written yet: see net.py" in unwritten
    assert "my-loss-2" in refused(capsys, "new", "method", "my-loss", "--output", tmp_path / "other")


def test_a_taken_name_beside_the_method_is_refused(checkout, capsys, monkeypatch):
    monkeypatch.setitem(models._entries, "my-loss-net", Registration("my-loss-net", None, origin="a package"))
    asked = ("new", "method", "my-loss", "--with", "model")
    assert "my-loss-net is taken by a package; take another name, for inst" in refused(capsys, *asked)
    assert "'nothing' is not one of 'plugin', 'data', 'model'" in refused(capsys, *asked[:-1], "nothing")
    assert list(checkout.iterdir()) == []


WRITTEN = {
    "loss": "return 2 * F.cross_entropy(outputs.adversarial.logits, y)",
    "attack_budget": "return budget._replace(epsilon=budget.epsilon * 0.9)",
    "read": """import numpy as np

    labels = np.repeat(np.arange(10), 50)
    images = np.random.default_rng(0).integers(0, 255, (500, 3, 32, 32), dtype=np.uint8)
    return Source(images, labels, images[::-1].copy(), labels[::-1].copy(), tuple("0123456789"))""",
    "my_loss_net": """net = nn.Sequential(nn.Conv2d(shape[0], 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.features = 8  # type: ignore[assignment]
    return net""",
}
"""What a contributor writes into each function that is left open."""
PROVEN = {
    "test_my_loss.py": "assert loss.item() == pytest.approx(2 * 0.376299, abs=1e-5)",
    "test_my_loss_plugin.py": "assert budget == (pytest.approx(0.027), given.step_size, given.start)",
}
"""What a contributor says of what they should compute."""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of a repository with our code, in which its owner has committed other things."""
    origin, mine, home = tmp_path / "origin", tmp_path / "mine", tmp_path / "bin"
    for part in ("ltrobust_bench", "baselines", ".github"):
        shutil.copytree(ROOT / part, origin / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("docs/fidelity.md", "tests/fidelity.py", "tests/conftest.py", "pyproject.toml"):
        (origin / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, origin / file)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "me")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "me@example.org")
    git = ["git", "-C", origin]
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "-m", "ours"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", origin, mine], check=True)
    monkeypatch.chdir(mine)
    (mine / "results").mkdir()
    (mine / "results" / "leaderboard.csv").write_text("mine")
    subprocess.run(["git", "add", "results"], check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", "not for a pull request"], check=True)
    home.mkdir()
    (home / "ltbench").write_text(f'#!/bin/sh\nexec {sys.executable} -m ltrobust_bench "$@"\n')
    (home / "ltbench").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(mine))
    return mine


@pytest.mark.slow
def test_what_is_printed_makes_a_pull_request_that_passes_its_examination(clone):
    def shell(command):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    out = shell("ltbench new method my-loss --with plugin --with data --with model")
    for function, file in re.findall(r"write the function `(\w+)` in (\S+)", out):
        text = Path(file).read_text()
        (hole,) = re.findall(r"raise NotImplementedError\(.*\)", text)
        Path(file).write_text(text.replace(hole, WRITTEN.pop(function)))
    assert not WRITTEN
    for file, line in re.findall(r"in (\S+) add to the list in `_built_in`:\n\n(.*)\n", out):
        head, end, tail = Path(file).read_text().partition("\n    ]\n")
        Path(file).write_text(f"{head}\n        {line}{end}{tail}")
    for card in re.findall(r"say in (\S+) what it is", out):
        say_what_it_is(Path(card))
    for name in PROVEN:
        (file,) = re.findall(rf"say in (\S+{name}) what it should compute", out)
        (hole,) = re.findall(r"raise NotImplementedError\(.*\)", Path(file).read_text())
        Path(file).write_text(Path(file).read_text().replace(hole, PROVEN[name]))
    assert " make fidelity\n" in out
    shell(f"{sys.executable} -m pytest -q tests/maths --fidelity docs/fidelity.md")
    written = Path("docs/fidelity.md").read_text()
    assert all(f"## {slug}\n" in written for slug in ("my-loss", "my-loss-plugin"))
    assert "By hand: the formula.\n\nMutants caught: nothing changed.\n" in written
    (run,) = re.findall(r"ltbench run .*", out)
    shell(f"{run} --dry-run")
    asked = [line.strip() for line in out.splitlines() if line.startswith("       git ")]
    assert [command.split()[1] for command in asked] == ["fetch", "switch", "add", "commit", "push"]
    for command in asked:
        shell(command)
    assert shell("git log --format=%s origin/main..HEAD") == "Method: my-loss\n"
    assert shell("git status --short") == "" and "method-my-loss" in shell(f"git -C {clone.parent / 'origin'} branch")
    examined = shell(f"{sys.executable} .github/submission.py --base origin/main --summary {clone.parent / 'x.md'}")
    assert examined.startswith("CHANGES WHAT DECIDES OVER ALL RECORDS: networks, data"), "a data set and a network do"
    assert "\n\n# Submission\n\nNothing wrong was found.\n" in examined
    assert "## Method my-loss\n" in examined and "## Method my-loss-plugin\n" in examined
