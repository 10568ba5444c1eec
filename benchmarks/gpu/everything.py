"""Every method and plug-in trains on the device, every attack attacks there; resume, precision, memory, a command."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import torch
from notes import CUDA, DEVICE, PRETENDED, SCRATCH, TINY, Notes, left, main

from ltrobust_bench import verbs
from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.attacks.registry import standard_attacks
from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.attacks.transfer import Transfer
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.compute.stand_in import StandIn
from ltrobust_bench.data.augment import augmentation
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import subject

TERMS: dict[str, Any] = {"protocol": "smoke", "limit_train": 200, "limit_test": 20, "epochs": 2}
SHORT = {"steps": 5, "queries": 20, "restarts": 1, "targets": 3}
RUNS = SCRATCH / "runs"


def train(slug: str, folder: str = "", **terms: Any) -> tuple[Any, float | None]:
    """Where the network is, and the last epoch's loss."""
    plan = make_plan(slug, "digits-lt", **(TERMS | terms))
    result = train_plan(plan, RUNS / (folder or "all") / plan.run.folder_name(), DEVICE)
    model = verbs.load_model(result.model_path, str(DEVICE)).model
    assert torch.isfinite(model(torch.rand(3, 1, 8, 8, device=DEVICE))).all()
    return result.model_path, result.history[-1]["loss"] if result.history else None


def float32(notes: Notes) -> None:
    """What full float32 means on this card: relative errors of a product and a convolution, beside TF32's 3e-4."""

    def error(got: torch.Tensor, exact: torch.Tensor) -> float:
        return float((got.double() - exact).norm() / exact.norm())

    a, b = (torch.randn(1024, 1024, device=DEVICE) for _ in range(2))
    x, w = torch.randn(8, 64, 32, 32, device=DEVICE), torch.randn(64, 64, 3, 3, device=DEVICE)
    convolution = torch.nn.functional.conv2d
    exact = a.double() @ b.double(), convolution(x.double(), w.double(), padding=1)
    with full_float32():
        inside = error(a @ b, exact[0]), error(convolution(x, w, padding=1), exact[1])
    outside = error(convolution(x, w, padding=1), exact[1])
    notes.put("float32", {"product": inside[0], "convolution": inside[1], "convolution by torch's default": outside})
    assert max(inside) < 5e-6, "not IEEE float32"


def attacks(notes: Notes, network: Any) -> None:
    """Verdicts against the CPU's: share that stands, and on how many images the two differ."""

    def short(attack: Attack) -> Attack:
        return attack.model_copy(update={name: value for name, value in SHORT.items() if hasattr(attack, name)})

    suite = make_task("digits-lt", protocol="digits-v0").protocol.evaluation.attacks
    single = [a for name, a in standard_attacks().items() if name not in {s.name for s in suite}]
    asked = [short(a) for a in (*suite, *single, Transfer.standard())]
    task = make_task("digits-lt", protocol="smoke", limit_test=20 if TINY else 100)

    def verdict(device: torch.device, search: Any) -> dict[str, np.ndarray]:
        model, other = (verbs.load_model(network, str(device)).model for _ in range(2))
        index = task.split.test
        data = DeviceData.of(task.source.test_pixels(index), np.asarray(task.source.test_labels[index]), device)
        with frozen(model):
            copied = None if search == "network" else StandIn(model, to_unit(data.images[:2]), search)
        terms = {"classes": 10, "epsilon": 0.05, "suite": Suite(seed=0, batch_size=32, attacks=asked)}
        return evaluate_images(model, data, surrogates={"transfer": other}, searched=copied, **terms).bits  # type: ignore[arg-type]

    here = verdict(torch.device("cpu"), "network")
    for search in ("network", "folded", "bf16"):
        with notes.finding(f"attacks/{search}"):
            there = verdict(DEVICE, search)
            found = {n: [round(float(bits.mean()), 3), int((bits != here[n]).sum())] for n, bits in there.items()}
            notes.put(f"attacks/{search}", found)


class Stop(Silent):
    """Interrupts after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, units: int = 1, detail: Any = None) -> None:
        self.left -= units
        if self.left < 0:
            raise KeyboardInterrupt


def resumed(notes: Notes) -> None:
    """The weights of the same training twice, and once interrupted after its first epoch."""
    plan, digests = make_plan("reat", "digits-lt", **TERMS), list[str]()
    for name in ("once", "again", "interrupted"):
        folder = RUNS / name / plan.run.folder_name()
        if name == "interrupted":
            try:
                train_plan(plan, folder, DEVICE, Stop(plan.steps_per_epoch + 1))
            except KeyboardInterrupt:
                assert list(folder.glob("checkpoint-*"))
        digests.append(verbs.load_model(train_plan(plan, folder, DEVICE).model_path).weights_sha256[:12])
    once, again, interrupted = digests
    notes.put("resume", {"same twice": once == again, "same when interrupted": once == interrupted})


def memory(notes: Notes, network: Any) -> None:
    """A batch that does not fit is split; more than one part shows that the card's own words were understood."""
    model = verbs.load_model(network, str(DEVICE)).model
    x, y = torch.rand(20000, 1, 8, 8, device=DEVICE), torch.zeros(20000, dtype=torch.int64, device=DEVICE)
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2.5e8) / whole)
    try:
        split = Splitting(model.eval())
        split.fit(lambda: pgd(split, x, y, epsilon=0.1, step_size=0.1, steps=1), len(x))
        notes.put("memory", {"parts": split.parts})
        assert split.parts > 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def augmented(notes: Notes) -> None:
    """Policies of augmentation: on how many of 256 pictures they differ from the CPU's."""
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    for name in ("randaugment", "autoaugment"):
        policy = augmentation(name)  # type: ignore[arg-type]
        assert policy is not None
        differ = (policy(images, 1) != policy(images.to(DEVICE), 1).cpu()).flatten(1).any(1)
        notes.put(f"augmentation/{name}", int(differ.sum()))


def policies(notes: Notes) -> None:
    for precision, policy in (
        (None, Policy(crafting="folded", memory_format="channels_last")),
        (None, Policy(crafting="winograd", memory_format="channels_last")),
        ("bf16", Policy(crafting="folded", memory_format="channels_last")),
        (None, Policy(compile=True, memory_format="channels_last")),
    ):
        name = f"{precision or 'float32'} {policy.crafting}{' compiled' if policy.compile else ''}"
        if policy.compile and (TINY or left() < 45):
            continue
        with notes.finding(f"policies/{name}"):
            notes.put(f"policies/{name}", train("reat", precision=precision, policy=policy)[1])


def command_line(notes: Notes) -> None:
    """A run from the shell, to its record."""
    command = [
        sys.executable,
        "-m",
        "ltrobust_bench",
        "run",
        "--method",
        "reat",
        "--dataset",
        "digits-lt",
        "--protocol",
        "smoke",
    ]
    command += ["--epochs", "1", "--limit-train", "100", "--limit-test", "20", "--device", DEVICE.type]
    command += ["--runs-dir", str(RUNS / "shell"), "--results-dir", str(RUNS / "shell-results")]
    said = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=max(10, left()),
        cwd=SCRATCH,
    )
    notes.put("command line", {"exit code": said.returncode, "end": (said.stderr or said.stdout)[-300:]})
    assert said.returncode == 0


def every_method(notes: Notes) -> None:
    names = [slug for slug in methods.names() if slug not in plugins]
    rows = [(slug, "fixed", ()) for slug in names]
    rows += [("at", "fixed", ("awp",)), ("reat", "paper", ("robustlt",)), ("reat", "fixed", ("awp", "robustlt"))]
    rows += [(slug, "paper", ()) for slug in names]
    for done, (slug, track, around) in enumerate(rows[:6] if TINY else rows):
        if left() < 8:
            notes.put("methods/no time left after", f"{done} of {len(rows)}")
            return
        name = f"{'+'.join((slug, *around))} {track}"
        with notes.finding(f"methods/{name}"):
            notes.put(f"methods/{name}", train(slug, track=track, plugins=around)[1])


def work(notes: Notes) -> None:
    subject.EXAMINED = subject.EXAMINED_IN_SMOKE = 20
    with notes.finding("first training"):
        # Long enough that some images are right, and some of those stand an attack.
        network, loss = train("at", "first", limit_train=400 if TINY else None, epochs=3 if TINY else 20)
        notes.put("first training", loss)
    checks: dict[str, Any] = {"float32": lambda: float32(notes)} if not PRETENDED else {}
    checks |= {"attacks": lambda: attacks(notes, network), "augmentation": lambda: augmented(notes)}
    if CUDA:
        checks["memory"] = lambda: memory(notes, network)
    checks["analyse"] = lambda: notes.put(
        "analyse", type(verbs.analyse(network, device=str(DEVICE), limit_test=20)).__name__
    )
    checks["record"] = lambda: notes.put(
        "record",
        verbs.run(
            "at", "digits-lt", runs_dir=RUNS / "record", results_dir=None, device=str(DEVICE), **TERMS
        ).environment.device,
    )
    checks |= {"resume": lambda: resumed(notes), "policies": lambda: policies(notes)}
    if not PRETENDED:
        checks["command line"] = lambda: command_line(notes)
    for name, check in (checks | {"methods": lambda: every_method(notes)}).items():
        with notes.finding(name):
            check()


if __name__ == "__main__":
    main("everything", work)
