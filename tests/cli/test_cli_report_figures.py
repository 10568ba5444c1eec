"""``ltbench report figures`` on the committed records."""

from __future__ import annotations

import shutil
from pathlib import Path

from command_line import call, refused

RESULTS = Path(__file__).parents[2] / "results"
FIGURES = ["report", "figures", "--dataset", "digits-lt", "--results-dir", RESULTS]


def test_one_kind_into_a_folder(capsys, tmp_path):
    code, out, err = call(capsys, *FIGURES, "head_tail", "--output", tmp_path / "out", "--runs-dir", tmp_path)
    assert code == 0 and err == ""
    assert out == f"wrote {tmp_path / 'out' / 'head_tail'}.png, .svg and .pdf\n"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"head_tail.{end}" for end in ("png", "svg", "pdf")}


def test_without_a_kind_all_that_can_be_drawn(capsys, tmp_path):
    place = ["--output", tmp_path / "out", "--runs-dir", tmp_path, "--methods", "reat,at"]
    code, out, _ = call(capsys, *FIGURES, *place)
    assert code == 0
    drawn = {p.stem for p in (tmp_path / "out").glob("*.png")}
    assert drawn == {"per_class", "groups", "tradeoff", "head_tail", "heat_map", "seeds", "ranks"}
    for kind in ("eps", "steps", "training", "published"):
        assert f"left out {kind}: " in out
    assert "ltbench eval RUN --curve eps" in out


def test_by_default_beside_the_boards_other_figures(capsys, tmp_path):
    shutil.copytree(RESULTS / "records" / "digits-v0" / "digits-lt-ir1", tmp_path / "records")
    code, _, _ = call(capsys, "report", "figures", "seeds", "--results-dir", tmp_path)
    assert code == 0 and (tmp_path / "figures" / "digits-v0-digits-lt-ir1-small-fixed" / "seeds.pdf").exists()


def test_bad_requests(capsys, tmp_path):
    assert "pie" in refused(capsys, *FIGURES, "pie")
    assert "'reat'" in refused(capsys, *FIGURES, "per_class", "--methods", "raet")
    assert "eps: no run in" in refused(capsys, *FIGURES, "eps", "--runs-dir", tmp_path)
    assert "0 boards fit" in refused(capsys, *FIGURES, "per_class", "--imbalance-ratio", 7)
    assert "--column" in refused(capsys, *FIGURES, "per_class", "--column", "triple")


def test_a_damaged_record_is_named_and_the_figure_drawn(capsys, tmp_path):
    shutil.copytree(RESULTS / "records" / "digits-v0" / "digits-lt-ir1", tmp_path / "records")
    broken = next((tmp_path / "records").rglob("*.json"))
    broken.write_text("{")
    code, out, err = call(capsys, "report", "figures", "seeds", "--results-dir", tmp_path)
    assert code == 1 and "wrote" in out and broken.name in err
