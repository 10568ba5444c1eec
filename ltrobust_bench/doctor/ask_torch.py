"""What torch says of itself, as JSON: `python -m ltrobust_bench.doctor.ask_torch`, a program since torch may crash."""

from __future__ import annotations

import json
import sys
from typing import Any


def answers() -> dict[str, Any]:
    """Builds, threads, GPUs by their device's name, and why a device does not compute (empty: it does)."""
    import torch
    import torchvision

    def fault(device: str) -> str:
        try:
            ones = torch.ones(2, 2, device=device)
            return "" if ones.mm(ones).sum().item() == 8 else "it multiplies matrices wrongly"
        except RuntimeError as error:
            return str(error).strip().splitlines()[0]

    gpus = {f"cuda:{i}": torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())}
    return {
        "version": torch.__version__,
        "torchvision": torchvision.__version__,
        "CUDA": torch.version.cuda or torch.version.hip or "none: a build for CPUs",
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": {
            device: f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, compute {gpu.major}.{gpu.minor}"
            for device, gpu in gpus.items()
        },
        "faults": {device: fault(device) for device in ("cpu", *gpus)},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answers()) + "\n")
