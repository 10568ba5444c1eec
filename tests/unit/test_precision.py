"""TF32 is off in all of torch's switches where it is said to be, and they come back; kernels that repeat."""

from __future__ import annotations

import os

import pytest
import torch

from ltrobust_bench.compute.precision import deterministic, float32_products, full_float32, training_arithmetic
from ltrobust_bench.errors import LTBenchError

backends = torch.backends
SWITCHES = {
    "matmul precision": torch.get_float32_matmul_precision,
    "old, matmul": lambda: backends.cuda.matmul.allow_tf32,
    "old, cudnn": lambda: backends.cudnn.allow_tf32,
}
if hasattr(backends.cuda.matmul, "fp32_precision"):
    SWITCHES |= {
        "new, matmul": lambda: backends.cuda.matmul.fp32_precision,
        "new, convolution": lambda: backends.cudnn.conv.fp32_precision,
        "new, rnn": lambda: backends.cudnn.rnn.fp32_precision,
        "new, processor": lambda: backends.mkldnn.matmul.fp32_precision,
    }


def seen():
    found = {}
    for name, read in SWITCHES.items():
        try:
            found[name] = read()
        except RuntimeError:  # an old switch that disagrees with a new one
            found[name] = None
    return found


def old_switches_on():
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = True


def new_switches_that_disagree():
    if "new, matmul" in SWITCHES:
        backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = "tf32", "ieee"


@pytest.fixture(autouse=True)
def _put_back():
    with full_float32():
        yield


@pytest.mark.parametrize("kind", ["ieee", "tf32"])
@pytest.mark.parametrize(
    "before",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        old_switches_on,
        new_switches_that_disagree,
    ],
    ids=["default", "high", "medium", "old", "new"],
)
def test_every_switch_is_set_and_comes_back(before, kind):
    """Somebody's model may read any of them: none raises, none says otherwise."""
    before()
    was = seen()
    with float32_products(kind):
        now = seen()
        with backends.cudnn.flags(enabled=False):  # reads the old switch, and writes it when it ends
            pass
    on = kind == "tf32"
    assert now["matmul precision"] == ("high" if on else "highest")
    assert now["old, matmul"] is now["old, cudnn"] is on
    assert {now[name] for name in now if name.startswith("new")} <= {kind, "ieee"}
    assert now.get("new, processor", "ieee") == "ieee"
    after = seen()
    assert {name: value for name, value in after.items() if was[name] is not None} == {
        name: value for name, value in was.items() if value is not None
    }


def test_training_in_tf32_switches_it_on_and_verdicts_switch_it_off():
    with training_arithmetic("tf32", tuned=True):
        assert backends.cuda.matmul.allow_tf32 and backends.cudnn.benchmark
        with full_float32():
            assert not backends.cuda.matmul.allow_tf32 and not backends.cudnn.allow_tf32
        assert backends.cudnn.allow_tf32
    for precision in ("fp32", "bf16"):
        with training_arithmetic(precision, tuned=False):
            assert not backends.cuda.matmul.allow_tf32 and not backends.cudnn.benchmark
    assert not backends.cudnn.benchmark


def test_deterministic_kernels_on_a_gpu(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(torch.device("cuda")), training_arithmetic("tf32", tuned=True):
        assert torch.are_deterministic_algorithms_enabled() and backends.cudnn.deterministic
        assert not backends.cudnn.benchmark and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled() and not backends.cudnn.deterministic
    said = "cumsum_cuda_kernel does not have a deterministic implementation, but you set ... . You can turn off"
    with (
        pytest.raises(LTBenchError, match=r"^--deterministic: cumsum.*; leave it out"),
        deterministic(torch.device("cuda")),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="^another$"), deterministic(torch.device("cuda")):
        raise RuntimeError("another")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_seeds_noise_is_the_processors_whatever_computes():
    """The numbers are drawn where the generator is, and then moved: one device takes as many as another. A generator on
    the images' device, or none, draws there."""
    from ltrobust_bench.attacks.ball import BALLS
    from ltrobust_bench.attacks.engine import start_point
    from ltrobust_bench.randomness import seeded

    x = torch.rand(3, 1, 4, 4)
    elsewhere = x.to("meta")
    for ball in BALLS.values():
        for kind in ("uniform", "one_sided", "gauss"):
            here, there = seeded(5, "attack", 1), seeded(5, "attack", 1)
            start_point(x, 0.1, kind, False, here, ball)
            assert start_point(elsewhere, 0.1, kind, False, there, ball).device.type == "meta"
            assert torch.equal(torch.rand(4, generator=here), torch.rand(4, generator=there)), kind
    torch.manual_seed(0)
    wanted = x + 0.1 * (2 * torch.rand(x.shape) - 1)
    torch.manual_seed(0)
    assert torch.allclose(start_point(x, 0.1, "uniform", False, None), wanted)
