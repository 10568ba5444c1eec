"""The training loop: the protocol's step budget, a checkpoint every epoch, exact resume."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError
from torch import Tensor, nn

from ltrobust_bench.attacks.pgd import pgd
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.forwards import compile_problem
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.data.loader import DeviceData, TrainLoader, to_unit
from ltrobust_bench.errors import BusyError, CheckpointError, LTBenchError, UsageError
from ltrobust_bench.files import make_folder, remove_leftovers, write_text
from ltrobust_bench.plan.code import Code, code_of, joined, refuse_other_code
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.randomness import derive_seed, seeded
from ltrobust_bench.terms import first_problem
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.build import (
    build_method,
    build_network,
    build_plugins,
    inherit,
    load_deployed,
    trained_parameters,
)
from ltrobust_bench.training.step import Step, Trainee

MONITOR_IMAGES = 128
MONITOR_TIMES = 20
"""At most, in a run."""
HELD_OUT_IMAGES, HELD_OUT_STEPS = 500, 20
"""Held-out images that a run with a holdout is attacked on as it trains, at most, and PGD steps."""


@dataclass
class TrainingCost:
    """What training cost: finished epochs of all sessions. Work lost to an interruption is not counted."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    steps: int = 0

    def __add__(self, other: TrainingCost) -> TrainingCost:
        mine, theirs = asdict(self), asdict(other)
        return TrainingCost(**{name: mine[name] + theirs[name] for name in mine})


@dataclass
class TrainingResult:
    """A finished training.

    Attributes:
        model_path: ``model.safetensors``, self-describing.
        cost: of all sessions together, and of the run it builds on.
        forwards_here: images passed forward by this call (0 if the run was already finished).
        history: one row per epoch.
        code: that of all sessions, those of the run it builds on included; empty if it was trained before code was
            recorded.
    """

    model_path: Path
    cost: TrainingCost
    forwards_here: int
    history: list[dict[str, Any]] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)


@contextmanager
def locked(folder: Path, waiting: Progress | None = None) -> Iterator[None]:
    """Hold a run folder alone, without what a killed process left half-written in it.

    Args:
        waiting: wait while another process works in it, and say so there; None: do not wait.

    Raises:
        BusyError: if another process works in it.
    """
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is None:
            raise BusyError(f"another process is working in {folder}; wait for it, or choose another seed.") from None
        waiting.note(f"waiting for another process that works in {folder}")
        lock.acquire()
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()


def train_plan(
    plan: Plan,
    folder: Path,
    device: torch.device,
    progress: Progress | None = None,
    *,
    wait: bool = False,
    fresh: bool = False,
) -> TrainingResult:
    """Train a plan in its run folder, going on from its newest checkpoint.

    A run that it builds on is finished first, in its own folder beside this one, where later runs find it.

    Interrupting it at any moment loses at most the epoch in hand. On a CPU with the same number of threads the
    result is the same bit for bit, however often it was interrupted.

    Args:
        folder: the run's own folder.
        device: where to compute.
        progress: what to report to.
        wait: while another process works in the folder, instead of refusing.
        fresh: begin again: what is in the folder is removed. The run that it builds on stays.

    Raises:
        CheckpointError: for a damaged checkpoint, or one that other code has trained.
        LTBenchError: if the loss stops being finite.
    """
    progress = progress or Silent()
    with locked(folder, progress if wait else None):
        if fresh:
            ckpt.remove_run(folder)
        finished = folder / "model.safetensors"
        if finished.exists():
            return _finished(plan, finished, progress)
        base = None
        if plan.base is not None:
            beside = folder.parent / plan.base.run.folder_name()
            base = train_plan(plan.base, beside, device, progress, wait=True)
            if not base.code:
                raise CheckpointError(
                    f"{beside}, which this run builds on, was trained before code was recorded; train it again with "
                    f"--method {plan.base.run.method} --fresh."
                )
        with full_float32(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            session = Session(plan, folder, device, progress, base)
            write_text(folder / "plan.json", plan.run.model_dump_json(indent=1) + "\n")
            return session.run()


def _finished(plan: Plan, path: Path, progress: Progress) -> TrainingResult:
    """The result that lies in a run folder already.

    Raises:
        CheckpointError: if it is damaged, another run's, or trained by other code.
    """
    _, description = ckpt.read_model(path)
    try:
        if RunSection.model_validate(description["run"]).key() != plan.run.key():
            raise CheckpointError(f"{path} belongs to another run; delete it to train again.")
        code = [Code.model_validate(session) for session in description.get("code", [])]
        refuse_other_code(plan, path.parent, code)
        if not code:
            progress.note(f"{path} was trained before code was recorded, so no board accepts its record")
        return TrainingResult(path, TrainingCost(**description["cost"]), 0, description["history"], code)
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{path} does not say what it is ({first_problem(error)}); delete it.") from None


class Session:
    """One session of training a run."""

    def __init__(
        self, plan: Plan, folder: Path, device: torch.device, progress: Progress, base: TrainingResult | None
    ) -> None:
        run, task = plan.run, plan.task
        self.plan, self.folder, self.device, self.progress, self.base = plan, folder, device, progress, base
        problem = compile_problem(device) if run.policy.compile else None
        if problem:
            raise UsageError(f"this run uses torch.compile, which does not work here: {problem}")
        teacher = self._teacher()
        method, info = build_method(run.method, run.options, run.train_counts, run.dataset, run.recipe.epochs, device)
        torch.manual_seed(derive_seed(run.seed, "init"))
        network = build_network(run.model, task.spec.shape, task.classes, method).to(device)
        if base is not None and teacher is None:
            inherit(network, ckpt.read_model(base.model_path, device)[0], method.inherits)
        recipe = run.recipe
        optimizer = recipe.optimizer.build(trained_parameters(network, method), recipe.lr, recipe.weight_decay)
        self.trainee = Trainee(
            network,
            method,
            recipe,
            optimizer,
            Counter(),
            build_plugins(run.plugins, run.options, info),
            teacher,
            run.policy,
            task.ball,
        )
        chosen = task.split.train
        self.data = DeviceData.of(task.source.train_pixels(chosen), task.source.train_labels[chosen], device)
        self.held_out = None
        if run.holdout is not None:
            self.held_out = DeviceData.of(task.source.test_images, task.source.test_labels, device)
        self.loader = TrainLoader(
            self.data,
            method.sampler,
            batch_size=recipe.batch_size,
            steps=plan.steps_per_epoch,
            seed=run.seed,
            padding=run.augmentation.crop_padding,
            flip=run.augmentation.flip,
            augment=recipe.augment,
        )
        self.cost = TrainingCost()
        self.code = [session.model_copy(update={"work": "base"}) for session in base.code] if base else []
        self.code += [code_of(run, "training")]
        self.history: list[dict[str, Any]] = []
        self.monitored = ""

    def _teacher(self) -> nn.Module | None:
        """The deployed network of the run it builds on, if that is its teacher."""
        card = self.plan.card
        if self.plan.base is None or self.base is None or card.base is None or card.base.role != "teacher":
            return None
        weights, _ = ckpt.read_model(self.base.model_path, self.device)
        return load_deployed(self.plan.base.run, self.plan.task.spec.shape, weights, self.device).requires_grad_(False)

    def run(self) -> TrainingResult:
        """Train what is left of the budget, and write the finished network."""
        epochs = self.plan.run.recipe.epochs
        first = self._resume() + 1
        steps = self.plan.steps_per_epoch
        self.progress.start(f"train {self.plan.run.method}", epochs * steps, (first - 1) * steps)
        if first > 1:
            self.progress.note(f"going on after epoch {first - 1} of {epochs}")
        for epoch in range(first, epochs + 1):
            self._epoch(epoch, epochs)
            ckpt.save_checkpoint(self.folder, epoch, self.trainee.network.state_dict(), self._state())
        return self._finish()

    def _epoch(self, epoch: int, epochs: int) -> None:
        trainee, run = self.trainee, self.plan.run
        before, began = (trainee.counter.forwards, trainee.counter.backwards), time.monotonic()
        first_rate = self._set_rate(epoch - 1, epochs)
        # Parts that draw from torch's global generator are as reproducible as the rest.
        torch.manual_seed(derive_seed(run.seed, "torch", epoch))
        noise = seeded(run.seed, "attack", epoch, self.device)
        total, images = torch.zeros((), device=self.device), 0
        for index, (x, y) in enumerate(self.loader.epoch(epoch)):
            if index and trainee.recipe.schedule.each == "step":
                self._set_rate(epoch - 1 + index / self.plan.steps_per_epoch, epochs)
            step = Step(trainee, x, y, epoch=epoch, epochs=epochs)
            step.craft(generator=noise)
            total += step.update() * len(y)
            images += len(y)
            self.progress.advance(1, lambda t=total, n=images: f"loss {t.item() / n:.3f} {self.monitored}")  # type: ignore[misc]
        loss = total.item() / images
        if not torch.isfinite(total):
            raise LTBenchError(
                f"the loss became {loss} in epoch {epoch} of {run.method}; the last good checkpoint is kept in "
                f"{self.folder}. Lower the learning rate with --set lr=..., or report it if the recipe is the card's."
            )
        for memory in trainee.method.memory.values():
            memory.on_epoch_end(epoch, trainee.network)
        row: dict[str, Any] = {"epoch": epoch, "lr": first_rate, "loss": loss}
        self.cost.forwards += trainee.counter.forwards - before[0]
        self.cost.backwards += trainee.counter.backwards - before[1]
        self.cost.steps += self.plan.steps_per_epoch
        self.cost.seconds += time.monotonic() - began
        if epoch == epochs or epoch % -(-epochs // MONITOR_TIMES) == 0:
            row |= self._monitor()
            self.monitored = f"train clean {row['train_clean']:.0%} robust {row['train_robust']:.0%}"
        self.history.append(row)

    def _set_rate(self, progress: float, epochs: int) -> float:
        """Have the optimiser use the schedule's rate after ``progress`` epochs from now on; the rate."""
        recipe = self.trainee.recipe
        lasting = 1 / self.plan.steps_per_epoch if recipe.schedule.each == "step" else 1
        rate = recipe.schedule.rate(recipe.lr, progress, epochs, lasting)
        for group in self.trainee.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _monitor(self) -> dict[str, float]:
        """Clean and PGD accuracy on some *training* images under the recipe's attack, and of a run with a holdout also
        on some held-out images, under PGD-20 of the evaluation's radius. The network is as it is trained, without the
        method's form of inference."""
        run, spec = self.plan.run, self.trainee.recipe.attack
        found = {}
        found["train_clean"], found["train_robust"] = self._accuracy(
            self.data, MONITOR_IMAGES, float(spec.epsilon), float(spec.step_size), max(spec.steps, 1)
        )
        if self.held_out is not None:
            found["val_clean"], found["val_robust"] = self._accuracy(
                self.held_out, HELD_OUT_IMAGES, run.epsilon, run.epsilon / 4, HELD_OUT_STEPS
            )
        return found

    def _accuracy(
        self, data: DeviceData, most: int, epsilon: float, step_size: float, steps: int
    ) -> tuple[float, float]:
        """Clean and PGD accuracy on at most so many images, spread evenly over a set."""
        chosen = torch.linspace(0, len(data) - 1, min(most, len(data)), device=self.device).long()
        x, y = to_unit(data.images[chosen]), data.labels[chosen]
        network = Splitting(self.trainee.network.eval())

        def attack() -> Tensor:
            return pgd(
                network,
                x,
                y,
                epsilon=epsilon,
                step_size=step_size,
                steps=steps,
                ball=self.trainee.ball,
                generator=seeded(self.plan.run.seed, "monitor", 0, self.device),
            )

        # A batch of the recipe's may be smaller, because no more images fit. What is looked at is no cost of training.
        with self.trainee.forwards.meter.apart():
            adversarial = network.fit(attack, len(x))
        with torch.no_grad(), self.trainee.forwards.meter.apart():
            clean, robust = (network(images).argmax(dim=1) == y for images in (x, adversarial))
        return clean.float().mean().item(), (clean & robust).float().mean().item()

    def _state(self) -> dict[str, Any]:
        # Randomness is a function of seed and epoch, so no generator's state has to be kept.
        return {
            "key": self.plan.run.key(),
            "code": [session.model_dump() for session in self.code],
            "optimizer": self.trainee.optimizer.state_dict(),
            "memory": {name: memory.state_dict() for name, memory in self.trainee.method.memory.items()},
            "cost": asdict(self.cost),
            "history": self.history,
        }

    def _resume(self) -> int:
        """Load the newest checkpoint; returns the last finished epoch, 0 without one."""
        loaded = ckpt.load_checkpoint(self.folder, self.device)
        if loaded is None:
            return 0
        epoch, weights, state = loaded
        try:
            if state["key"] != self.plan.run.key():
                raise CheckpointError(f"the checkpoint in {self.folder} belongs to another run; delete that folder.")
            earlier = [Code.model_validate(session) for session in state["code"]]
            refuse_other_code(self.plan, self.folder, earlier)
            self.code = joined(earlier, self.code)
            self.trainee.network.load_state_dict(weights)
            self.trainee.optimizer.load_state_dict(state["optimizer"])
            for name, memory in self.trainee.method.memory.items():
                memory.load_state_dict(state["memory"][name])
            self.cost, self.history = TrainingCost(**state["cost"]), state["history"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint in {self.folder} does not fit this run ({first_problem(error)}); delete that folder."
            ) from None
        return epoch

    def _finish(self) -> TrainingResult:
        path = self.folder / "model.safetensors"
        cost = self.cost + self.base.cost if self.base else self.cost
        description = {
            "run": self.plan.run.model_dump(mode="json"),
            "class_names": list(self.plan.task.source.class_names),
            "cost": asdict(cost),
            "base_cost": asdict(self.base.cost) if self.base else None,
            "code": [session.model_dump() for session in self.code],
            "history": self.history,
        }
        write_text(self.folder / "training.csv", _csv(self.history))
        ckpt.save_model(path, self.trainee.network.state_dict(), description)
        ckpt.remove_checkpoints(self.folder)
        here = self.trainee.counter.forwards + (self.base.forwards_here if self.base else 0)
        return TrainingResult(path, cost, here, self.history, self.code)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = ["epoch", "lr", "loss", "train_clean", "train_robust"]
    columns += [name for name in ("val_clean", "val_robust") if rows and name in rows[-1]]
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
