"""AutoAttack on 500 test images of CIFAR-10: its authors' package called plainly, and ours; verdicts image by image.

First with a hundredth of the iterations, then with more, as far as there is time.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from evaluate import our_call, plain_call
from notes import DATA, DEVICE, SCRATCH, TINY, Notes, left, main, wait

from ltrobust_bench.api import Network, linear
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.errors import DataError
from ltrobust_bench.models import models
from ltrobust_bench.plan.task import Task, make_task
from ltrobust_bench.training import checkpoint

IMAGES, BATCH = (12, 6) if TINY else (500, 250)
SHARES = (0.01,) if TINY else (0.01, 0.1, 0.3, 1.0)
CALLS = ("pyautoattack", "network", "folded", "bf16")
GROWTH = 12
"""No share costs more than so many times the one before."""


def subject() -> tuple[Network, str]:
    """The network that ``training.py`` left, or a fresh one."""
    path, name = SCRATCH / "network.safetensors", "small" if TINY else "resnet18"
    kept = checkpoint.read_model(path, DEVICE) if path.exists() else None
    name = kept[1]["model"] if kept else name
    torch.manual_seed(0)
    backbone = models.get(name)((1, 8, 8) if TINY else (3, 32, 32))
    network = Network(backbone, linear(backbone.features, 10))
    if kept:
        network.load_state_dict(kept[0])
    return network.to(DEVICE).eval(), f"{name}, {'a minute of REAT' if kept else 'untrained'}"


def images() -> tuple[Task, DeviceData]:
    task = make_task("digits-lt", limit_test=100) if TINY else make_task("cifar10-lt", limit_test=1000, data_dir=DATA)
    index = task.split.test[np.linspace(0, len(task.split.test) - 1, IMAGES).astype(int)]
    return task, DeviceData.of(task.source.test_pixels(index), np.asarray(task.source.test_labels[index]), DEVICE)


def work(notes: Notes) -> None:
    try:
        task, data = images()
    except DataError as error:
        notes.put("skipped", str(error))
        return
    network, what = subject()
    with torch.no_grad():
        clean = float((network(to_unit(data.images)).argmax(1) == data.labels).float().mean())
    notes.put("network", {"is": what, "clean accuracy": clean})
    cost: dict[str, float] = {}
    verdicts: dict[str, np.ndarray] = {}
    for share in SHARES:
        asked = {"steps": max(2, round(100 * share)), "queries": max(2, round(5000 * share))}
        for name in CALLS:
            if GROWTH * cost.get(name, 0) > left() and share > SHARES[0]:
                notes.put(f"share {share}/{name}", "no time left")
                continue
            with notes.finding(f"share {share}/{name}"):
                terms = {"epsilon": task.epsilon, "batch": BATCH} | asked
                if name == "pyautoattack":
                    call = plain_call(network, to_unit(data.images), data.labels, **terms)  # type: ignore[arg-type]
                else:
                    call = our_call(network, data, name, **terms)  # type: ignore[arg-type]
                if share == SHARES[0] and not TINY:
                    call()  # to warm up
                wait()
                began = time.monotonic()
                verdicts[name] = call()
                wait()
                cost[name] = time.monotonic() - began
                other = int((verdicts[name] != verdicts["pyautoattack"]).sum()) if "pyautoattack" in verdicts else None
                found = {
                    "seconds": round(cost[name], 2),
                    "robust": float(verdicts[name].mean()),
                    "other verdicts": other,
                }
                notes.put(f"share {share}/{name}", found)
        notes.put(f"verdicts/{share}", {name: "".join(map(str, v.astype(int))) for name, v in verdicts.items()})
        verdicts.clear()


if __name__ == "__main__":
    main("autoattack", work)
