"""The notebooks in ``examples/notebooks`` do what they say: every cell is executed, in order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ltrobust_bench import baselines
from ltrobust_bench.cards import methods

NOTEBOOKS = Path(__file__).resolve().parents[2] / "examples" / "notebooks"


def cells(name):
    """The code cells of a notebook, which is stored without results."""
    found = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in found if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    return ["".join(cell["source"]) for cell in code]


def executed(name):
    """The names that a notebook's cells leave."""
    names = {"__name__": "__main__"}
    for number, code in enumerate(cells(name)):
        exec(compile(code, f"{name}, cell {number}", "exec"), names)  # noqa: S102
    return names


def test_there_are_two():
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == ["your_defense.ipynb", "your_images.ipynb"]


@pytest.mark.slow
def test_your_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = executed("your_images.ipynb")
    assert names["record"].run.dataset == "folder-photos-8px" and names["answer"].name.startswith("digit ")
    assert names["record"].run.train_counts == [146, 76, 36, 16] and (tmp_path / "model.pt2").exists()


@pytest.mark.slow
def test_your_defense(tmp_path, monkeypatch):
    folder = tmp_path / "baselines"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "CHECKOUT", folder)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(folder)])
    try:
        names = executed("your_defense.ipynb")
        assert set(names["found"].values()) == {"ok"}, names["found"]
        assert set(names["board"].to_frame()["method"]) == {"at", "sqrt-balanced"}
    finally:
        methods.read_again()
        for name in [n for n in sys.modules if n.startswith("ltrobust_bench.baselines.sqrt_balanced")]:
            del sys.modules[name]
