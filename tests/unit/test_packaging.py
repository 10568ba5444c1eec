"""The wheel carries the baselines, and the editable install finds them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ltrobust_bench.cards import methods

CODE = (
    "import ltrobust_bench, ltrobust_bench.baselines.at, ltrobust_bench.baselines.at.method as m\n"
    "from ltrobust_bench.cards import methods\n"
    "from ltrobust_bench.protocol import protocols\n"
    "print(ltrobust_bench.__file__); print(m.__file__); print(*methods.names()); print(*protocols.names())"
)


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={**os.environ, **environment},
    )
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, root],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_installed_without_dependencies_lists_every_method(wheel, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, wheel], check=True
    )
    package, method, names, protocols = run(CODE, PYTHONPATH=str(tmp_path))
    assert Path(package).is_relative_to(tmp_path)
    assert Path(method) == tmp_path / "ltrobust_bench" / "baselines" / "at" / "method.py"
    assert names.split() == methods.names()
    assert protocols.split() == [
        "digits-l2-v0",
        "digits-v0",
        "ltr-l2-v1",
        "ltr-linf-large-v0",
        "ltr-linf-lite-v1",
        "ltr-linf-v1",
        "smoke",
    ]
    assert (tmp_path / "bin" / "ltbench").exists()
    checkout = "from ltrobust_bench.baselines import CHECKOUT; print(CHECKOUT)"
    assert run(checkout, PYTHONPATH=str(tmp_path)) == ["None"]


def test_editable_install_uses_the_checkout(root):
    package, method, names, _ = run(CODE)
    assert Path(package) == root / "ltrobust_bench" / "__init__.py"
    assert Path(method) == root / "baselines" / "at" / "method.py"
    assert names.split() == methods.names()


def test_wheel_has_no_tests_data_or_results(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert all(n.startswith(("ltrobust_bench/", "ltrobust_bench-")) for n in names)
    assert len(names) == len(set(names))
    assert {"ltrobust_bench/protocol/ltr-linf-v1.toml", "ltrobust_bench/baselines/reat/card.toml"} <= set(names)
    assert "ltrobust_bench/weights/index.json" in names  # with the networks that it lists
    assert {f"ltrobust_bench/extra/averages.{kind}" for kind in ("npz", "toml")} <= set(names)
    site = Path(__file__).resolve().parents[2] / "ltrobust_bench" / "report" / "site"
    for part in ("templates", "assets"):
        assert {f"ltrobust_bench/report/site/{part}/{path.name}" for path in (site / part).iterdir()} <= set(names)
