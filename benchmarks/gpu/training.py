"""REAT on CIFAR-10-LT as ``ltbench train`` does it, for as long as there is time, and from that its whole budget; what
the estimate had said. The network that comes out is what ``autoattack.py`` attacks."""

from __future__ import annotations

import shutil
import time
from typing import Any

import torch
from notes import CUDA, DATA, DEVICE, SCRATCH, TINY, Notes, left, main, wait

from ltrobust_bench.compute.precision import training_arithmetic
from ltrobust_bench.errors import DataError
from ltrobust_bench.plan.make import Plan, make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.training import checkpoint, trainer
from ltrobust_bench.training.estimate import estimate

WARM = 10
"""Steps before the clock: cuDNN chooses, the allocator grows."""
NETWORK = SCRATCH / "network.safetensors"


class Enough(Exception):
    """The time is over."""


class Watch(Silent):
    """Counts steps, and ends a training when its time is over."""

    def __init__(self, until: float) -> None:
        self.until, self.steps, self.began = until, 0, 0.0

    def advance(self, units: int = 1, detail: Any = None) -> None:
        self.steps += 1
        if self.steps == WARM:
            wait()
            self.began = time.monotonic()
        if self.steps % WARM == 0 and time.monotonic() > self.until:
            raise Enough


def plan_of(slug: str, **terms: Any) -> Plan:
    if TINY:
        return make_plan(slug, "digits-lt", protocol="smoke", limit_train=600, epochs=40, **terms)
    return make_plan(slug, "cifar10-lt", data_dir=DATA, **terms)


def train(notes: Notes, name: str, seconds: float, **terms: Any) -> trainer.Session:
    """Train for so many seconds, and note the rate."""
    plan, folder = plan_of("reat", **terms), SCRATCH / "trained" / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    watch = Watch(time.monotonic() + seconds)
    # What train_plan does around a session; here the session is wanted.
    with torch.random.fork_rng(devices=[DEVICE] if CUDA else []):
        session = trainer.Session(plan, folder, DEVICE, watch, None)
        try:
            with training_arithmetic(plan.run.recipe.precision, True):
                session.run()
        except Enough:
            pass
    wait()
    if watch.steps <= WARM:
        notes.put(f"training/{name}", f"no rate of {watch.steps} steps")
        return session
    rate = (watch.steps - WARM) / (time.monotonic() - watch.began)
    rows = [
        [row["epoch"], round(row["loss"], 4), row.get("train_clean"), row.get("train_robust")]
        for row in session.history
    ]
    found = {
        "steps": watch.steps,
        "of": plan.budget,
        "steps a second": round(rate, 2),
        "images a second": round(rate * plan.run.recipe.batch_size),
        "minutes for the whole budget": round(plan.budget / rate / 60, 2),
        "GiB at most": round(torch.cuda.max_memory_allocated() / 2**30, 2) if CUDA else None,
        "epochs (loss, clean, robust)": rows[-3:],
    }
    notes.put(f"training/{name}", found)
    return session


def work(notes: Notes) -> None:
    try:
        plan_of("reat")
    except DataError as error:
        notes.put("skipped", str(error))
        return
    with notes.finding("estimate"):
        told = estimate(plan_of("reat"), DEVICE)
        seconds = {"training": told.training_seconds, "evaluation": told.evaluation_seconds}
        notes.put("estimate", {f"{name}, minutes": round(value / 60, 1) for name, value in seconds.items()})
    time_left = max(2.0 if TINY else 20.0, left() - 10)
    with notes.finding("training/default"):
        session = train(notes, "default", 0.5 * time_left if not TINY else 5)
        weights = session.trainee.network.state_dict()
        checkpoint.save_model(NETWORK, weights, {"model": session.plan.run.model})
    fast = Policy(crafting="folded", memory_format="channels_last")
    for name, terms in (
        ("plain", {"policy": Policy(), "precision": "fp32"}),
        ("bf16 folded", {"policy": fast, "precision": "bf16"}),
    ):
        with notes.finding(f"training/{name}"):
            train(notes, name, 0.2 * time_left if not TINY else 2, **terms)


if __name__ == "__main__":
    main("training", work)
