"""What is done in processes apart: they end, say one line, write nothing beside networks, and nobody else's code is
asked before it is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from record_factory import synthetic_record

from ltrobust_bench import verbs
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.errors import CheckFailed
from ltrobust_bench.progress import Silent
from ltrobust_bench.records.trust import Results
from ltrobust_bench.registry import Registration
from ltrobust_bench.verbs import apart, judging
from ltrobust_bench.verbs.verification import Where, retrain

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "results" / "weights"
needs_shipped = pytest.mark.skipif(not (SHIPPED / "lite-at-bsl.safetensors").is_file(), reason="no network is shipped")


def ran(code, patience=60.0):
    apart._run(["-c", code], {}, Silent(), "it failed", patience)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import time; time.sleep(60)", "it failed: it did not end within 0.5 seconds"),
        ("print('x' * 10**6); raise SystemExit(3)", "it failed: " + "x" * 290),
        ("print('x\\x1b[2Jy\\u202e'); raise SystemExit(3)", r"it failed: x\\x1b\[2Jy\\u202e"),
        ("raise SystemExit(3)", "it failed: exit code 3"),
        ("print('Error: no\\n\\n'); raise SystemExit(1)", "it failed: no"),
        ("print('a\\n' * 10**6)", r"it failed: it wrote more than 0\.5 MB"),
    ],
)
def test_a_process_apart_ends_and_says_one_line(monkeypatch, code, says):
    monkeypatch.setattr(apart, "LOUDEST", 500_000 if "MB" in says else 100_000_000)
    with pytest.raises(CheckFailed, match=says) as error:
        ran(code, 0.5 if "sleep" in code else 60.0)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_its_lines_are_passed_on_to_the_last():
    said = []
    follower = type("Said", (Silent,), {"note": lambda self, line: said.append(line)})()
    apart._run(["-c", "print('a'); print('b'); print('c', end='')"], {}, follower, "it failed", 60.0)
    assert said == ["a", "b", "c"]


@needs_shipped
def test_a_network_is_judged_by_its_name(monkeypatch):
    def written(network, output, progress):
        assert network.is_file() and not output.is_relative_to(SHIPPED)
        raise CheckFailed(f"asked for {network.name}")

    monkeypatch.setattr(judging, "refuse_imported", lambda: None)
    monkeypatch.setattr(judging, "write_graph_apart", written)
    with pytest.raises(CheckFailed, match="asked for lite-at-bsl.safetensors"):
        judging.judged_file(Path("lite:at-bsl"), device=torch.device("cpu"))


@needs_shipped
def test_nothing_is_written_beside_a_shipped_network(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED, tmp_path / "results" / "weights")
    before = sorted((tmp_path / "results" / "weights").iterdir())
    monkeypatch.setenv("LTBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    written, _ = verbs.export("lite:at-bsl", "torchscript")
    assert written.resolve() == tmp_path / "lite-at-bsl.torchscript" and written.is_file()
    assert sorted((tmp_path / "results" / "weights").iterdir()) == before


def test_anothers_data_set_is_refused_before_its_code_is_asked(tmp_path, monkeypatch):
    (tmp_path / "anothers_data.py").write_text("raise RuntimeError('its code was run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    datasets.add(Registration("anothers", "anothers_data:SPEC", "x", "elsewhere", "elsewhere"))
    try:
        record = synthetic_record(method="at", dataset="anothers")
        monkeypatch.setattr("ltrobust_bench.verbs.verification.refuse_imported", lambda: None)
        with pytest.raises(CheckFailed, match="data set anothers is of another package, whose code the judge does not"):
            retrain(record, Where("Jane"))
        assert Results(tmp_path).again(record) == ""
        assert "anothers_data" not in sys.modules
    finally:
        datasets._entries.pop("anothers")
