"""The checks for a GPU come to their end, so that its minutes are not spent on their mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_every_part_comes_to_its_end(root, tmp_path, device):
    command = [sys.executable, root / "benchmarks" / "gpu" / "check.py", "--tiny", "--scale", "6", "--device", device]
    done = subprocess.run([*map(str, command), "--output", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == {"everything", "agreement", "steps", "training", "autoattack"}
    assert all(part["ended"] and not part["errors"] for part in found.values())
    assert found["everything"]["resume"] == {"same twice": True, "same when interrupted": True}
    assert found["agreement"]["outside the limits"] == []
