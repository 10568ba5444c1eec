"""``ltbench new``: what it writes passes the check once its one function is written."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import fields

import pytest
from command_line import call, refused

from ltrobust_bench import baselines
from ltrobust_bench.api import Method
from ltrobust_bench.cards import methods, plugins

HOLE = 'raise NotImplementedError("the loss of my-loss is not written yet: see method.py")'


def read_again(monkeypatch):
    """Registries as a new process would read them."""
    for registry in (methods, plugins):
        monkeypatch.setattr(registry, "_entries", {})
        monkeypatch.setattr(registry, "_complete", False)


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
    read_again(monkeypatch)

    code, out, err = call(capsys, "check", "my-loss")
    assert code == 1 and "Traceback" not in out + err
    assert "FAIL trains two epochs\n       NotImplementedError: the loss of my-loss is not written yet" in out
    assert "ok   card is complete" in out and "ok   options agree with the card" in out

    text = method.read_text()
    assert text.count(HOLE) == 1
    method.write_text(text.replace(HOLE, "return F.cross_entropy(outputs.adversarial.logits, y)"))
    for name in [n for n in sys.modules if n.startswith("ltrobust_bench.baselines.my_loss")]:
        del sys.modules[name]
    assert call(capsys, "check", "my-loss")[0] == 0
    ours = ["--line-length=120", "--config", 'lint.isort.known-first-party=["ltrobust_bench"]']
    for lint in (["check", "--select=E,F,I,UP,B,SIM,RET,PTH"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *lint, *ours, method], capture_output=True, check=False)
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
