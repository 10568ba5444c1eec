"""The time of one training step of ResNet-18, batch 128, PGD-10, in CIFAR's shapes: the plain loop and each variant of
``benchmarks/train.py``; what the card can do at most; where the time goes; an attack as one CUDA graph."""

from __future__ import annotations

import os
from typing import Any

import torch
import train
from notes import CUDA, DEVICE, PRETENDED, TINY, Notes, left, main, timed, wait

from ltrobust_bench.attacks.engine import ascend, crafting_mode
from ltrobust_bench.compute.precision import float32_products, training_arithmetic
from ltrobust_bench.training.build import build_method, build_network

MODEL, BATCH, STEPS, REPEATS = ("small", 8, 2, 2) if TINY else ("resnet18", 128, 10, 8)
COMPILING = 35
"""Seconds that a variant with torch.compile needs before its first step."""


def ceilings() -> dict[str, float]:
    """TFLOP/s of large products and of a convolution of the network, and TB/s of a copy."""
    found = {}
    for name, dtype, kind in (
        ("float32", torch.float32, "ieee"),
        ("TF32", torch.float32, "tf32"),
        ("bfloat16", torch.bfloat16, "ieee"),
    ):
        with float32_products(kind):
            found[f"product {name}"] = product_rate(256 if TINY else 8192, dtype)
            for form, layout in (("first", torch.contiguous_format), ("last", torch.channels_last)):
                found[f"convolution {name}, channels {form}"] = convolution_rate(dtype, layout)
    big = torch.empty(2**20 if TINY else 2**31, dtype=torch.uint8, device=DEVICE)
    other = torch.empty_like(big)
    found["copy"] = round(2 * big.numel() / timed(lambda: other.copy_(big), 5)["ms"] / 1e9, 2)
    return found


def product_rate(size: int, dtype: torch.dtype) -> float:
    a = torch.randn(size, size, device=DEVICE, dtype=dtype)
    return round(2 * size**3 / timed(lambda: a @ a, 5)["ms"] / 1e9, 1)


def convolution_rate(dtype: torch.dtype, layout: torch.memory_format) -> float:
    """Of 128 channels to 128, 3x3, on 16x16 pixels."""
    x = torch.randn(BATCH, 128, 16, 16, device=DEVICE, dtype=dtype).to(memory_format=layout)
    w = torch.randn(128, 128, 3, 3, device=DEVICE, dtype=dtype).to(memory_format=layout)
    ms = timed(lambda: torch.nn.functional.conv2d(x, w, padding=1), 10)["ms"]
    return round(2 * BATCH * 256 * 128 * 128 * 9 / ms / 1e9, 1)


def variants(notes: Notes) -> None:
    """Milliseconds a step, and of that the host's."""
    for slug in ("reat", "at"):
        names = list(train.VARIANTS) if slug == "reat" else ["default"]
        names = [name for name in names if not (TINY and "compile" in name and "COMPILE" not in os.environ)]
        compiled = [name for name in names if "compile" in name]  # last: they take long to begin
        for name in ["reference", *(n for n in names if n not in compiled), *compiled]:
            if left() < (COMPILING if name in compiled else 4) and not TINY:
                notes.put(f"steps/{slug} {name}", "no time left")
                continue
            with notes.finding(f"steps/{slug} {name}"):
                asked = [] if name == "reference" else [name]
                step = train.steps_of(slug, MODEL, DEVICE, BATCH, STEPS, asked)[name]
                with training_arithmetic("fp32" if name == "reference" else train.VARIANTS[name][1], True):
                    notes.put(f"steps/{slug} {name}", timed(step, REPEATS))
                    if name == "default" and CUDA:
                        notes.put(f"profile/{slug} {name}", kernels(step))
                del step


def kernels(step: Any) -> dict[str, Any]:
    """How many kernels a step has, how long they take, and the longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        step()
        wait()
    rows = sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)
    longest = {row.key[:60]: round(row.self_device_time_total / 1e3, 2) for row in rows[:8]}
    count = sum(str(event.device_type).endswith("CUDA") for event in seen.events())
    return {
        "kernels": count,
        "device ms": round(sum(r.self_device_time_total for r in rows) / 1e3, 2),
        "longest": longest,
    }


def graph() -> dict[str, Any]:
    """An attack of all its steps as one CUDA graph, against the same launched kernel by kernel."""
    from ltrobust_bench.compute.stand_in import StandIn

    method, _ = build_method("at", {}, train.COUNTS, "cifar10-lt", 100, DEVICE)
    network = build_network(MODEL, train.IMAGE, 10, method).to(DEVICE).eval()
    x, noise = (torch.rand(BATCH, *train.IMAGE, device=DEVICE) for _ in range(2))
    y = torch.randint(0, 10, (BATCH,), device=DEVICE)
    copied, start = StandIn(network, x[:2], "folded"), x + train.EPSILON * (2 * noise - 1)

    def attack() -> torch.Tensor:
        def objective(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        size = train.EPSILON / 4
        terms: dict[str, Any] = {"epsilon": train.EPSILON, "step_size": size, "steps": STEPS, "start": start}
        return ascend(copied, x, y, objective=objective, **terms)

    with crafting_mode(copied, "eval"):
        launched, side = timed(attack, 5), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                attack()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            result = attack()
        replayed = timed(captured.replay, 10)
        return {
            "launched": launched,
            "replayed": replayed,
            "largest difference": float((result - attack()).abs().max()),
        }


def work(notes: Notes) -> None:
    notes.put("GFLOP a step", round(train.operations(MODEL, BATCH, STEPS) / 1e9, 1) if not PRETENDED else None)
    with notes.finding("ceilings"):
        notes.put("ceilings", ceilings())
    if CUDA:
        with notes.finding("graph"), float32_products("ieee"):
            notes.put("graph", graph())
    variants(notes)


if __name__ == "__main__":
    main("steps", work)
