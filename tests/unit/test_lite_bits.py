"""The lite protocol does not move: two training steps and a batch under its attacks give what they gave when it was
fixed, to the last bit where processor and torch are those of that day, elsewhere up to rounding.

``python tests/unit/test_lite_bits.py DATA`` prints what stands in lite_bits.json; it changes only with a new protocol.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from short_autoattack import SHORT

from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.plan.request import Request
from ltrobust_bench.progress import Silent
from ltrobust_bench.training.trainer import Session

KEPT = Path(__file__).with_name("lite_bits.json")
CPU = torch.device("cpu")
IMAGES = 8


def processor() -> str:
    """What decides how a product of matrices is rounded."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    parts = [re.search(rf"^{name}\s*: (.*)$", text, re.M) for name in ("cpu family", "model", "stepping", "cache size")]
    return " ".join([torch.__version__, torch.backends.cpu.get_cpu_capability(), *(p[1] for p in parts if p)])


def sha256(*tensors: torch.Tensor) -> str:
    """Of their values."""
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def computed(data_dir: Path, folder: Path) -> dict[str, dict]:
    """Digests, and numbers that survive another rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        asked = Request("reat", "cifar10-lt", protocol="ltr-linf-lite-v1", epochs=1, limit_train=256)
        plan = asked.to_plan(data_dir)
        session = Session(plan, folder, CPU, Silent(), None)
        result = session.run()
        network = session.trainee.network.eval()
        weights = list(network.state_dict().values())
        norm = sum(float(w.double().square().sum()) for w in weights)
        found = {"training": {"bits": sha256(*weights), "numbers": [result.history[0]["loss"], norm]}}
        task = plan.task
        x = torch.from_numpy(task.source.test_images[:IMAGES]) / 255
        y = network(x).argmax(dim=1)  # after two steps hardly an image has its own class; an attack needs one to turn
        on = Target(network, task.classes, task.epsilon, task.ball, task.protocol.evaluation.seed, CPU)
        for attack in task.protocol.evaluation.attacks:
            for name, stage in (SHORT if attack.kind == "autoattack" else attack).stages(on).items():
                adversarial = stage(x, y, 0)
                moved = float((adversarial - x).double().abs().mean())
                found[f"{attack.name} {name}"] = {"bits": sha256(adversarial), "numbers": [moved]}
    finally:
        torch.set_num_threads(threads)
    return found


def test_two_steps_and_a_batch_are_what_they_were(cifar10_folder, tmp_path):
    kept = json.loads(KEPT.read_text())
    found = computed(cifar10_folder, tmp_path)
    assert found.keys() == kept["found"].keys()
    for name, one in kept["found"].items():
        assert found[name]["numbers"] == pytest.approx(one["numbers"], rel=1e-2), name
    if processor() == kept["processor"]:
        assert {n: one["bits"] for n, one in found.items()} == {n: one["bits"] for n, one in kept["found"].items()}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        print(json.dumps({"processor": processor(), "found": computed(Path(sys.argv[1]), Path(place))}, indent=1))
