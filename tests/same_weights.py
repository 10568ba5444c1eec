"""Weights that runs had before: keys, losses and digests stay, bit for bit, while the package around them changes.

The weights were trained by the code of commit ad16ffc (``golden/same_weights.json`` says how). Other processors and
other versions of torch round differently: there the losses must agree to 2 %, and only here the digests.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ltrobust_bench.machine import device_name
from ltrobust_bench.training import checkpoint as ckpt

BEFORE = json.loads((Path(__file__).parent / "golden" / "same_weights.json").read_text(encoding="utf-8"))
HERE = [device_name("cpu"), torch.__version__, torch.backends.cpu.get_cpu_capability()]
PLAIN = {
    run["request"].get("plugins", [run["request"]["method"]])[0]: run
    for run in BEFORE["runs"]
    if len(run["request"]) == 1 or run["request"] == {"method": "at", "plugins": ["awp"]}
}
"""Runs of a method, and of a plug-in around at, without any option: test_conformance.py trains those anyway."""


def require_same(result, before):
    """A training has the key, the losses and, on the machine of that time, the weights that it had then."""
    assert result.model_path.parent.name == before["run_folder"], "the run key changed"
    assert [row["loss"] for row in result.history] == pytest.approx(before["loss"], rel=0.02)
    if BEFORE["machine"] == HERE:
        assert ckpt.read_model(result.model_path)[1]["weights_sha256"] == before["weights_sha256"]
