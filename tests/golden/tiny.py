"""Reading the golden cases, the tiny network they use, and the comparison within each case's own tolerance."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltrobust_bench.api import Head, Network
from ltrobust_bench.longtail import CosineHead

SHIPPED = Path(__file__).parent
FOLDER = Path(os.environ.get("LTBENCH_GOLDEN", SHIPPED))
"""Where the cases are; ``LTBENCH_GOLDEN`` names a folder of other cases of the same shape."""
DIFFERENCES: list[float] = []
"""Largest difference of each comparison; read by the fidelity report."""


def cases(name: str, folder: Path = FOLDER, **options: Any) -> list[Any]:
    """The cases of a file whose options have the given values.

    None is no error here, since another folder need not have all: tests/unit/test_fidelity.py sees that each case that
    ships is used.
    """
    path = folder / f"{name}.json"
    found = [
        case
        for case in (json.loads(path.read_text())["cases"] if path.exists() else [])
        if all(case["options"].get(key) == value for key, value in options.items())
    ]
    return [pytest.param({**case, "file": name}, id=case["name"]) for case in found]


def shipped(name: str, case: str | None = None, **options: Any) -> dict[str, Any]:
    """The first of the cases that ship with these options, or with that name: what a test changes on purpose."""
    found = [c.values[0] for c in cases(name, folder=SHIPPED, **options) if case in (None, c.id)]
    return found[0]


def dtype_of(case: dict[str, Any]) -> torch.dtype:
    return torch.float32 if case["options"].get("dtype") == "float32" else torch.float64


def tensor(case: dict[str, Any], value: Any, grad: bool = False) -> Tensor:
    return torch.tensor(value, dtype=dtype_of(case)).requires_grad_(grad)


def close(case: dict[str, Any], key: str, got: Any, expected: Any = None) -> None:
    """Assert that ``got`` is what the case expects under ``key``, within the case's tolerance."""
    tolerance = {**case["tolerance"], **case["tolerance"].get("by_key", {}).get(key, {})}
    if tolerance.get("exact"):
        tolerance = {"rtol": 0, "atol": 0}
    want = case["expected"][key] if expected is None else expected
    got = got.detach().cpu().numpy() if isinstance(got, Tensor) else got
    got = np.asarray(got, dtype=float)
    if got.size:
        DIFFERENCES.append(float(np.abs(got - np.asarray(want, dtype=float)).max()))
    np.testing.assert_allclose(
        got,
        want,
        rtol=tolerance.get("rtol", 0),
        atol=tolerance.get("atol", 0),
        err_msg=key,
    )


def same(got: Any, expected: Any) -> None:
    """Assert that orders, counts or texts are exactly what a case expects."""
    assert got == expected
    DIFFERENCES.append(0.0)


class TinyBackbone(nn.Module):
    """3x3 convolution -> batch norm -> ReLU -> mean over space, of (x - mean) / std."""

    def __init__(self, channels: int, features: int, mean: Tensor | float = 0.0, std: Tensor | float = 1.0) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.conv = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(features)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv((x - self.mean) / self.std)).relu().mean(dim=(2, 3))


def ours(name: str) -> str:
    """A golden parameter name as it is called in our network."""
    return name.replace("fc.", "head.") if name.startswith("fc.") else f"backbone.{name}"


def network(case: dict[str, Any], make: Head = nn.Linear) -> Network:
    """The tiny network of a case, with its parameters and buffers; ``make`` makes its head if that is linear."""
    spec = case["inputs"]["network"]
    classes, features = np.shape(spec["params"]["fc.weight"])
    channels = np.shape(spec["params"]["conv.weight"])[1]
    if spec["head"] == "cosine":
        head: nn.Module = CosineHead(features, classes, **spec["head_options"])
    else:
        head = make(features, classes)
    per_channel = {k: tensor(case, case["inputs"][k])[:, None, None] for k in ("mean", "std") if k in case["inputs"]}
    model = Network(TinyBackbone(channels, features, **per_channel), head).to(dtype_of(case))
    stored = {**spec["params"], **spec["buffers"]}
    state = {ours(k): torch.tensor(v, dtype=model.state_dict()[ours(k)].dtype) for k, v in stored.items()}
    model.load_state_dict(state)
    return model
