"""The training loop: the protocol's step budget, a checkpoint every epoch, exact resume."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ltrobust_bench.api import Network
from ltrobust_bench.compute import ranks
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.device import started
from ltrobust_bench.compute.forwards import compile_problem
from ltrobust_bench.compute.precision import training_arithmetic
from ltrobust_bench.compute.sharing import shared
from ltrobust_bench.data.loader import DeviceData, TrainLoader, training_set
from ltrobust_bench.data.registry import typed_lists
from ltrobust_bench.errors import CheckpointError, LTBenchError, UsageError
from ltrobust_bench.files import is_there, shard_bytes, write_text
from ltrobust_bench.interrupt import in_steps, stop_if_asked, stopping
from ltrobust_bench.plan.code import Code, code_of, joined, refuse_other_code
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.plan.task import DATA_PLACE
from ltrobust_bench.progress import Ended, Epoch, Progress, Resumed, Saved, Silent
from ltrobust_bench.randomness import derive_seed
from ltrobust_bench.terms import first_problem
from ltrobust_bench.tracking.runlog import logged
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.build import (
    build_method,
    build_plugins,
    companion_of,
    inherit,
    load_deployed,
    network_of,
    sampler_of,
    trained_parameters,
)
from ltrobust_bench.training.folder import locked
from ltrobust_bench.training.hand import EpochInHand, begin_epoch
from ltrobust_bench.training.losses import MOST_UNDONE, LossWatch, Undo
from ltrobust_bench.training.monitor import due, monitor
from ltrobust_bench.training.recalibration import recalibrate, running_norms
from ltrobust_bench.training.result import MODEL, TrainingCost, TrainingResult, finished, history_csv, told
from ltrobust_bench.training.step import Step, Trainee


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
        StorageError: if the disk is full.
        LTBenchError: if the loss stops being finite.
    """
    progress = progress or Silent()
    shard_bytes()  # a size that is none is refused before anything is trained
    with locked(folder, progress if wait else None), logged(folder if ranks.first() else None, progress) as heard:
        if fresh and ranks.first():
            ckpt.remove_run(folder)
        if ranks.from_first(lambda: is_there(folder / MODEL)):
            result = finished(plan, folder / MODEL, heard)
            if ranks.first():
                ckpt.remove_checkpoints(folder)  # whoever finished it may have been killed before
            return result
        base = None
        if plan.base is not None:
            beside = folder.parent / plan.base.run.folder_name()
            base = train_plan(plan.base, beside, device, progress, wait=True)
            if not base.code:
                raise CheckpointError(
                    f"{beside}, which this run builds on, was trained before code was recorded; train it again with "
                    f"--method {plan.base.run.method} --fresh."
                )
        arithmetic = training_arithmetic(plan.run.recipe.precision, tuned=plan.run.policy != Policy())
        with arithmetic, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            session = Session(plan, folder, device, heard, base)
            if ranks.first():
                write_text(folder / "plan.json", plan.run.model_dump_json(indent=1) + "\n")
                if plan.task.place is not None:
                    lines = [str(plan.task.place.absolute()), typed_lists(plan.task.spec)]
                    write_text(folder / DATA_PLACE, "".join(f"{line}\n" for line in lines if line))
            return session.run()


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
        network = self._started(network_of(run, task.spec.shape, method)).to(device)
        if base is not None and teacher is None:
            inherit(network, ckpt.read_model(base.model_path, device)[0], method.inherits)
        if run.recipe.recalibrate_bn != "none" and not running_norms(network.backbone):
            raise UsageError(
                f"recalibrate_bn={run.recipe.recalibrate_bn} would change nothing: {run.model} has no batch norm with "
                f"running statistics; leave it out."
            )
        torch.manual_seed(derive_seed(run.seed, "companion"))
        companion = companion_of(run, task.spec.shape, method)
        companion = companion and self._started(companion).to(device)
        recipe = run.recipe
        moved = trained_parameters(network, method, companion, recipe.weight_decay)
        optimizer = recipe.optimizer.build(moved, recipe.lr, recipe.weight_decay)
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
            progress.note,
            companion,
        )
        chosen = task.split.train
        self.data = training_set(task.source, chosen, device)
        self.held_out = None
        if run.holdout is not None:
            self.held_out = DeviceData.of(task.source.test_images, task.source.test_labels, device)
        extra = plan.extra
        self.loader = TrainLoader(
            self.data,
            sampler_of(method, self.trainee.plugins),
            batch_size=recipe.batch_size,
            steps=plan.steps_per_epoch,
            seed=run.seed,
            padding=run.augmentation.crop_padding,
            flip=run.augmentation.flip,
            augment=recipe.augment,
            extra=DeviceData.of(extra.images, extra.labels, device) if extra else None,
            share=extra.terms.share if extra else 0.0,
        )
        self.cost = TrainingCost()
        self.code = [session.model_copy(update={"work": "base"}) for session in base.code] if base else []
        self.code += [code_of(run, "training")]
        self.history: list[dict[str, Any]] = []
        self.monitored = ""
        self.lowered = 1.0
        """By how much the learning rate was lowered because of losses that were not finite."""

    def _started(self, network: Network) -> Network:
        """A fresh network with the weights that the run starts from in its backbone, if it does from any."""
        if self.plan.weights is not None and self.plan.run.pretrained is not None:
            from ltrobust_bench.models.ecosystem import start_from

            start_from(network.backbone, self.plan.run.model, self.plan.weights, self.plan.run.pretrained)
        return network

    def _teacher(self) -> nn.Module | None:
        """The deployed network of the run it builds on, if that is its teacher."""
        card = self.plan.card
        if self.plan.base is None or self.base is None or card.base is None or card.base.role != "teacher":
            return None
        weights, _ = ckpt.read_model(self.base.model_path, self.device)
        teacher = load_deployed(self.plan.base.run, self.plan.task.spec.shape, weights, self.device)
        return shared(teacher.requires_grad_(False))

    def run(self) -> TrainingResult:
        """Train what is left of the budget, and write the finished network."""
        epochs, steps, opened = self.plan.run.recipe.epochs, self.plan.steps_per_epoch, time.monotonic()
        self.progress.tell(started(self.plan.run, "training", self.device))
        done, hand = self._resume()
        begun = hand.step if hand else 0
        self.progress.start(f"train {self.plan.run.method}", epochs * steps, done * steps + begun)
        if done or begun:
            within = f" and {begun} of {steps} steps" if begun else ""
            after = f"epoch {done} of {epochs}{within}"
            self.progress.note(f"going on after {after}")
            self.progress.tell(Resumed(after))
        with in_steps():
            for epoch in range(done + 1, epochs + 1):
                self._epoch(hand or begin_epoch(self.plan.run.seed, epoch, self.device, self.loader.order), epochs)
                hand = None
                self._keep(epoch)
                if epoch < epochs:
                    stop_if_asked(kept=True)
            result = self._finish()
        self.progress.tell(Ended("training", time.monotonic() - opened))
        return result

    def _epoch(self, hand: EpochInHand, epochs: int) -> None:
        trainee, epoch, steps = self.trainee, hand.epoch, self.plan.steps_per_epoch
        counter, watch = trainee.counter, LossWatch(hand.step)
        forwards, backwards = counter.forwards - hand.forwards, counter.backwards - hand.backwards
        began = time.monotonic() - hand.seconds
        first_rate = self._set_rate(epoch - 1, epochs)
        for batch in self.loader.epoch(epoch, hand.order, hand.step):
            if hand.step and trainee.recipe.schedule.each == "step":
                self._set_rate(epoch - 1 + hand.step / steps, epochs)
            undo = None if trainee.recipe.on_nan == "stop" else Undo(trainee)
            step = Step(trainee, *batch, epoch=epoch, epochs=epochs)
            step.craft(generator=hand.noise)
            loss = step.update()
            hand.step += 1
            if undo is not None and undo.spoiled(loss):
                self._undo(undo, hand, loss.item())
            else:
                hand.total += loss * len(batch.y)
                hand.images += len(batch.y)
                if watch.add(loss):
                    self._check(watch, hand)
            hand.forwards, hand.backwards = counter.forwards - forwards, counter.backwards - backwards
            hand.seconds = time.monotonic() - began
            if stopping() and hand.step < steps:
                self._check(watch, hand)
                self._keep(epoch - 1, hand)
                stop_if_asked(kept=True)
            self.progress.advance(1, lambda: f"loss {hand.total.item() / max(hand.images, 1):.3f} {self.monitored}")
        self._check(watch, hand)
        mean = hand.total.item() / max(hand.images, 1)
        if not math.isfinite(mean) or not hand.images:
            raise self._diverged(hand, steps - 1, mean)
        for memory in trainee.memories.values():
            memory.on_epoch_end(epoch, trainee.network)
        if epoch == epochs:
            recalibrate(trainee, self.loader.epoch(epoch + 1, hand.order), hand.noise, epoch)
        row: dict[str, Any] = {"epoch": epoch, "lr": first_rate, "loss": mean}
        if hand.undone:
            row["undone"] = hand.undone
        self.cost += TrainingCost(
            counter.forwards - forwards, counter.backwards - backwards, time.monotonic() - began, steps
        )
        if due(epoch, epochs):
            row |= monitor(trainee, self.plan.run, self.data, self.held_out)
            self.monitored = f"train clean {row['train_clean']:.0%} robust {row['train_robust']:.0%}"
        self.history.append(row)
        self.progress.tell(Epoch(row, time.monotonic() - began))

    def _check(self, watch: LossWatch, hand: EpochInHand) -> None:
        """Look at the losses of the latest steps."""
        found = watch.not_finite()
        if found is not None:
            raise self._diverged(hand, *found)

    def _undo(self, undo: Undo, hand: EpochInHand, loss: float) -> None:
        """Undo a step whose loss, or what it made of the network, is not finite, as the run's ``on_nan`` says."""
        undo.put_back()
        hand.undone += 1
        if hand.undone > max(1, MOST_UNDONE * self.plan.steps_per_epoch):
            raise self._diverged(hand, hand.step - 1, loss)
        done = "it was undone"
        if self.trainee.recipe.on_nan == "lower-lr":
            self.lowered /= 2
            for group in self.trainee.optimizer.param_groups:
                group["lr"] /= 2
            done += f", and the learning rate is {self.lowered:g} times the recipe's from here"
        self.progress.note(
            f"epoch {hand.epoch}, step {hand.step}: the loss, {loss:g}, or a weight is not finite; {done}"
        )

    def _diverged(self, hand: EpochInHand, step: int, loss: float) -> LTBenchError:
        """What is to be said of a step (from 0) whose loss is not finite."""
        size, newest = self.loader.batch_size, ckpt.newest(self.folder)
        batch, chosen = hand.order[..., step * size : (step + 1) * size].ravel(), self.plan.task.split.train
        images = chosen[batch[batch < len(chosen)]]
        kept = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        undone = f" ({hand.undone} steps of the epoch were undone)" if hand.undone else ""
        return LTBenchError(
            f"the loss became {loss:g} in epoch {hand.epoch}, step {step + 1} of {self.plan.steps_per_epoch}, of "
            f"{self.plan.run.method}{undone}; {kept}. Lower the learning rate with --set lr=..., go on with --on-nan "
            f"skip-batch or lower-lr (off-recipe), or report it if the recipe is the card's. Training images of that "
            f"step: {', '.join(map(str, images.tolist()))}."
        )

    def _set_rate(self, progress: float, epochs: int) -> float:
        """Have the optimiser use the schedule's rate after ``progress`` epochs from now on, and its momentum (of Adam,
        beta1) where it cycles that; the rate."""
        recipe = self.trainee.recipe
        lasting = 1 / self.plan.steps_per_epoch if recipe.schedule.each == "step" else 1
        rate = self.lowered * recipe.schedule.rate(recipe.lr, progress, epochs, lasting)
        momentum = recipe.schedule.momentum_at(progress, epochs, lasting)
        for group in self.trainee.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_share", 1.0)
            if momentum is not None:
                group.update(
                    {"momentum": momentum} if "momentum" in group else {"betas": (momentum, group["betas"][1])}
                )
        return rate

    def _state(self, hand: EpochInHand | None) -> dict[str, Any]:
        # Randomness is a function of seed and epoch: only of an epoch in hand its generators' states have to be kept.
        return {
            "key": self.plan.run.key(),
            "code": [session.model_dump() for session in self.code],
            "optimizer": self.trainee.optimizer.state_dict(),
            "memory": {name: memory.state_dict() for name, memory in self.trainee.memories.items()},
            "cost": asdict(self.cost),
            "history": self.history,
            "lowered": self.lowered,
            "beside": None if self.trainee.companion is None else self.trainee.companion.state_dict(),
            "hand": hand and hand.state(),
        }

    def _keep(self, epoch: int, hand: EpochInHand | None = None) -> None:
        """Write a checkpoint: ``epoch`` epochs are finished, and some steps of the next one if it is in hand."""
        weights = self.trainee.network.state_dict()
        if (
            hand is None and ranks.count() > 1
        ):  # in the middle of an epoch the first stops alone, and the others with it
            held = [network.state_dict() for network in self.trainee.networks.values()]
            ranks.see_agreement(" ".join(map(ckpt.weights_sha256, held)))
        if ranks.first():
            began = time.monotonic()
            saved = ckpt.save_checkpoint(self.folder, epoch, weights, self._state(hand), hand.step if hand else 0)
            self.progress.tell(Saved(saved.name, time.monotonic() - began))

    def _resume(self) -> tuple[int, EpochInHand | None]:
        """Load the newest checkpoint: the last finished epoch, 0 without one, and the next if it was begun."""
        loaded = ranks.after_first(lambda: ckpt.load_checkpoint(self.folder, self.device, self.progress))
        if loaded is None:
            return 0, None
        epoch, weights, state = loaded
        try:
            if state["key"] != self.plan.run.key():
                raise CheckpointError(f"the checkpoint in {self.folder} belongs to another run; delete that folder.")
            earlier = [Code.model_validate(session) for session in state["code"]]
            refuse_other_code(self.plan, self.folder, earlier)
            self.code = joined(earlier, self.code)
            self.trainee.network.load_state_dict(weights)
            if self.trainee.companion is not None:
                self.trainee.companion.load_state_dict(state["beside"])
            self.trainee.optimizer.load_state_dict(state["optimizer"])
            for name, memory in self.trainee.memories.items():
                memory.load_state_dict(state["memory"][name])
            self.cost, self.history, self.lowered = TrainingCost(**state["cost"]), state["history"], state["lowered"]
            hand = state["hand"] and EpochInHand.of(state["hand"], self.device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint in {self.folder} does not fit this run ({first_problem(error)}); delete that folder."
            ) from None
        return epoch, hand

    def _finish(self) -> TrainingResult:
        path = self.folder / MODEL
        cost = self.cost + self.base.cost if self.base else self.cost
        description = {
            "run": self.plan.run.model_dump(mode="json"),
            "class_names": list(self.plan.task.source.class_names),
            "cost": asdict(cost),
            "base_cost": asdict(self.base.cost) if self.base else None,
            "code": [session.model_dump() for session in self.code],
            "history": self.history,
        }
        if ranks.first():
            write_text(self.folder / "training.csv", history_csv(self.history))
            ckpt.save_model(path, self.trainee.network.state_dict(), description)
            ckpt.remove_checkpoints(self.folder)
        ranks.wait()
        here = self.trainee.counter.forwards + (self.base.forwards_here if self.base else 0)
        return told(TrainingResult(path, cost, here, self.history, self.code), self.plan, self.progress)
