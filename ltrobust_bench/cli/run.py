"""``ltbench run``"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.devices import on_devices, repeatable, started
from ltrobust_bench.cli.following import Follow, followed
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    metrics_table,
    plan_options,
    progress_on,
    requests,
    results_dir_option,
    set_threads,
)

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from ltrobust_bench.plan.make import Plan
    from ltrobust_bench.records.schema import Record
    from ltrobust_bench.scores.reliability import Flag

LONG = 12 * 3600


@click.command(
    epilog="""\b
    Example: ltbench run --method reat --dataset digits-lt
             ltbench run --method at-bsl --dataset folder:photos/@64
             ltbench run --method at-bsl --dataset digits-lt --holdout val
             ltbench run --method at-bsl --dataset digits-lt --tuned trials.json

    Running the same command again goes on where an interrupted run stopped, and reuses a finished one."""
)
@plan_options
@results_dir_option
@click.option(
    "--tuned",
    type=PATH,
    metavar="FILE",
    help="Take the settings that `ltbench tune` chose; the record says how many were tried.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost, do nothing.")
@on_devices
@repeatable
@followed
def command(
    data_dir: Path | None,
    device: str,
    threads: int | None,
    fresh: bool,
    runs_dir: Path,
    results_dir: Path,
    tuned: Path | None,
    dry_run: bool,
    follow: Follow,
    **asked: Any,
) -> None:
    """Train a defense, attack it with the protocol's suite, and write its record."""
    from ltrobust_bench.compute.device import choose_device
    from ltrobust_bench.files import make_folder
    from ltrobust_bench.verbs import run_plan, tuned_plan

    set_threads(threads)
    out, where = console(), choose_device(device)
    # All are planned before the first is run, so that mistakes show at once.
    plans = [tuned_plan(request, tuned, data_dir) for request in requests(out, where, **asked)]
    if not dry_run:
        make_folder(runs_dir)
        make_folder(results_dir)
    made: list[tuple[Plan, Record]] = []
    for plan, trials in plans:
        print_plan(out, plan, where, runs_dir, follow.quiet)
        if dry_run:
            continue
        with progress_on(out, follow) as progress:
            record = run_plan(
                plan,
                runs_dir=runs_dir,
                results_dir=results_dir,
                device=where,
                progress=progress,
                trials=trials,
                fresh=fresh,
            )
        print_record(out, record, plan.task.source.class_names, runs_dir / plan.run.folder_name())
        made.append((plan, record))
    if asked["folds"]:
        print_folds(out, made)


def print_folds(out: Console, made: Sequence[tuple[Plan, Record]]) -> None:
    """Runs that differ in nothing but the fold, class by class, together."""
    from itertools import groupby

    from ltrobust_bench.cli.classes import classes_table

    for (method, _), runs in groupby(made, key=lambda one: (one[0].card.slug, one[0].run.seed)):
        folds = list(runs)
        out.print(f"{method}, seed {folds[0][0].run.seed}", style="bold")
        out.print(classes_table([record for _, record in folds], folds[0][0].task.source.class_names, folds=True))


def print_record(out: Console, record: Record, class_names: Sequence[str], folder: Path | None) -> None:
    """A run's result, class by class too, and where its record is."""
    from ltrobust_bench.cli.classes import classes_table
    from ltrobust_bench.records.numbers import flags_of

    run = record.run
    reduced = ", REDUCED run" if run.reduced else ""
    what = run.dataset if run.holdout is None else f"held-out training images of {run.dataset}"
    title = f"{run.combination} on {what} (IR {run.ratio}, {run.model}, seed {run.seed}{reduced})"
    rows = {a: record.metrics(a) for a in ("clean", *record.attacks, "union")}
    out.print(metrics_table(title, rows, sum(run.test_counts)))
    out.print(classes_table([record], class_names))
    print_flags(out, flags_of(record))
    if folder is not None:
        out.print(f"record: {folder / 'record.json'}")


def print_flags(out: Console, flags: list[Flag]) -> None:
    """Signs that an evaluation can be fooled, one line each."""
    for flag in flags:
        out.print(f"flag: {flag.name}: {flag.seen} ({flag.meaning})", style="yellow")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def print_plan(out: Console, plan: Plan, device: torch.device, runs_dir: Path, quiet: bool = False) -> None:
    """What will be done, what it costs, and whether a person will still be there when it is done; ``quiet``: only
    what must not be missed."""
    from ltrobust_bench.plan.code import code_of
    from ltrobust_bench.records.filing import unfit_note

    warned, out = out, console(quiet)
    folder = runs_dir / plan.run.folder_name()
    first, *others = _terms(plan)
    out.print(first, style="bold")
    for line in others:
        out.print(line)
    recipe = plan.run.recipe
    warming = recipe.schedule.warmup_epochs
    if 2 * warming > recipe.epochs:
        less = f"--set schedule.warmup_epochs={recipe.epochs // 10}"
        warned.print(f"  the rate only grows in {warming} of {recipe.epochs} epochs: {less}", style="yellow")
    for note in plan.task.source.notes:
        out.print(f"  {note}")
    unfit = unfit_note(plan.run, [code_of(plan.run, "training")])
    for warning in [*plan.task.source.warnings, *([unfit] if unfit else [])]:
        warned.print(f"  {warning}", style="yellow")
    out.print(f"  run folder: {folder}")
    if (folder / "record.json").exists():
        out.print("  finished already")
        return
    for line in _base(plan, device, runs_dir):
        out.print(line)
    _print_cost(out, plan, device)


def _terms(plan: Plan) -> Iterator[str]:
    """What will be trained and attacked, and what is unusual about it, a line each."""
    from ltrobust_bench.plan.run import Policy

    run = plan.run
    yield f"{plan.card.title} ({run.combination}) on {run.dataset}, protocol {run.protocol}, track {run.track}"
    tested = "test" if run.holdout is None else "held-out training"
    yield (
        f"  {plan.train_size} training images (IR {run.ratio}: {max(run.train_counts)} to "
        f"{min(run.train_counts)} a class), {sum(run.test_counts)} {tested} images, {run.model}, seed {run.seed}, "
        f"{run.threat_model} radius {run.epsilon:.4g}"
    )
    if run.extra is not None:
        leak = "; it may hold what the cut took from the tail" if run.extra.leaks else ""
        yield f"  extra data {run.extra.text} ({sum(run.extra.counts)} images): boards show it without a rank{leak}"
    if run.pretrained is not None:
        yield (
            f"  starts from {run.pretrained.name} (SHA-256 {run.pretrained.sha256[:12]}), trained on images that "
            f"nobody states: boards show it as extra data, without a rank; the network normalises its images as they "
            f"ask (mean {_numbers(run.pretrained.mean)}, deviation {_numbers(run.pretrained.std)})"
        )
    chosen = {k: v for k, v in run.options.items() if v is not None} | run.overrides
    if chosen:
        yield f"  settings: {', '.join(f'{k}={v}' for k, v in chosen.items())}"
    if run.off_recipe:
        by_hand = ", ".join(name for name in run.overrides if name != "precision")
        yield f"  off-recipe ({by_hand}): boards show it without a rank"
    if run.policy != Policy():
        policy = ", ".join(f"{name}={value}" for name, value in run.policy.model_dump().items())
        usual = "as the protocol says; --plain: the reference path"
        theirs = run.policy.crafting == plan.task.protocol.crafting
        yield f"  computed by: {policy}{f' ({usual})' if theirs else ''}"
        mode = run.recipe.attack.bn_mode
        if run.policy.crafting != "network" and mode != "eval":
            yield f"  crafting attacks the network itself: batch norm is in mode {mode} there, not in eval mode"


def _base(plan: Plan, device: torch.device, runs_dir: Path) -> Iterator[str]:
    """The run that this one builds on, unless its network is finished and needs none."""
    from ltrobust_bench.files import is_there
    from ltrobust_bench.progress import duration
    from ltrobust_bench.training.estimate import estimate

    if plan.base is None or is_there(runs_dir / plan.run.folder_name() / "model.safetensors"):
        return
    beside = runs_dir / plan.base.run.folder_name()
    if is_there(beside / "model.safetensors"):
        yield f"  builds on: {beside}"
        return
    first = estimate(plan.base, device)
    about = f"{first.steps} steps, about {duration(first.training_seconds)}"
    yield f"  builds on: {beside}, which is trained first: {about}"


def _print_cost(out: Console, plan: Plan, device: torch.device) -> None:
    """Steps, images and time."""
    from ltrobust_bench.machine import device_name
    from ltrobust_bench.progress import duration
    from ltrobust_bench.training.estimate import ASSUMED_ROBUST, estimate

    cost = estimate(plan, device)
    out.print(
        f"  cost: {cost.steps} steps ({plan.run.recipe.epochs} epochs of {plan.steps_per_epoch}), "
        f"{cost.training_images:,} images forward and backward in training, about {cost.evaluation_images:,} in "
        f"the evaluation (if {ASSUMED_ROBUST:.0%} survive)"
    )
    out.print(
        f"  time on {'one ' if started() > 1 else ''}{device_name(str(device))}: about "
        f"{duration(cost.training_seconds)} + {duration(cost.evaluation_seconds)}"
    )
    if cost.seconds > LONG:
        out.print(f"  This will take about {duration(cost.seconds)} on this machine.", style="bold yellow")
        out.print(
            "  It can be interrupted at any moment; the same command goes on. A GPU is much faster; --epochs, "
            "--limit-train and --limit-test make a reduced run."
        )
