"""``ltbench run``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.shared import (
    console,
    metrics_table,
    parse_settings,
    plan_options,
    progress_on,
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
    epilog="Example: ltbench run --method reat --dataset digits-lt. Running the same command again goes on where an "
    "interrupted run stopped, and reuses a finished one."
)
@plan_options
@results_dir_option
@click.option(
    "--trials",
    type=click.IntRange(0),
    default=0,
    help="Configurations tried before this one, for the record.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost, do nothing.")
def command(
    method_names: tuple[str, ...],
    seeds: tuple[int, ...],
    settings: tuple[str, ...],
    device: str,
    threads: int | None,
    fresh: bool,
    runs_dir: Path,
    results_dir: Path,
    trials: int,
    dry_run: bool,
    **request: Any,
) -> None:
    """Train a defense, attack it with the protocol's suite, and write its record."""
    from ltrobust_bench.compute.device import choose_device
    from ltrobust_bench.files import make_folder
    from ltrobust_bench.verbs import run_plan

    set_threads(threads)
    out, where = console(), choose_device(device)
    plans = make_plans(out, where, method_names, seeds, settings, request)
    if not dry_run:
        make_folder(runs_dir)
        make_folder(results_dir)
    for plan in plans:
        print_plan(out, plan, where, runs_dir)
        if dry_run:
            continue
        with progress_on(out) as progress:
            record = run_plan(
                plan,
                runs_dir=runs_dir,
                results_dir=results_dir,
                device=where,
                progress=progress,
                trials=trials,
                fresh=fresh,
            )
        print_record(out, record, runs_dir / plan.run.folder_name())


def make_plans(
    out: Console,
    device: torch.device,
    method_names: tuple[str, ...],
    seeds: tuple[int, ...],
    settings: tuple[str, ...],
    request: dict[str, Any],
) -> list[Plan]:
    """One plan per method and seed; all are made before the first is run, so that mistakes show at once."""
    from ltrobust_bench.compute.forwards import usable_policy
    from ltrobust_bench.plan.make import make_plan

    dataset, given = request.pop("dataset"), parse_settings(settings)
    asked = {name: request.pop(name) for name in ("crafting", "compiled")}
    request["policy"], notes = usable_policy(device, request["precision"], **asked)
    for note in notes:
        out.print(note, style="yellow", soft_wrap=True)
    return [make_plan(m, dataset, seed=s, settings=given, **request) for m in method_names for s in seeds]


def print_record(out: Console, record: Record, folder: Path | None) -> None:
    """A run's result, and where its record is."""
    from ltrobust_bench.records.numbers import flags_of, summary

    run = record.run
    reduced = ", REDUCED run" if run.reduced else ""
    label = "+".join([run.method, *run.plugins])
    title = f"{label} on {run.dataset} (IR {run.imbalance_ratio:g}, {run.model}, seed {run.seed}{reduced})"
    rows = {a: summary(record, a) for a in ("clean", *record.attacks, "union")}
    out.print(metrics_table(title, rows, sum(run.test_counts)))
    print_flags(out, flags_of(record))
    if folder is not None:
        out.print(f"record: {folder / 'record.json'}", soft_wrap=True)


def print_flags(out: Console, flags: list[Flag]) -> None:
    """Signs that an evaluation can be fooled, one line each."""
    for flag in flags:
        out.print(f"flag: {flag.name}: {flag.seen} ({flag.meaning})", style="yellow", soft_wrap=True)


def print_plan(out: Console, plan: Plan, device: torch.device, runs_dir: Path) -> None:
    """What will be done, what it costs, and whether a person will still be there when it is done."""
    from ltrobust_bench.plan.code import code_of
    from ltrobust_bench.plan.run import Policy
    from ltrobust_bench.progress import duration
    from ltrobust_bench.records.filing import unfit_note
    from ltrobust_bench.records.provenance import device_name
    from ltrobust_bench.training.estimate import ASSUMED_ROBUST, estimate

    run, recipe = plan.run, plan.run.recipe
    folder = runs_dir / run.folder_name()
    label = "+".join([run.method, *run.plugins])
    out.print(f"{plan.card.title} ({label}) on {run.dataset}, protocol {run.protocol}, track {run.track}", style="bold")
    out.print(
        f"  {plan.train_size} training images (IR {run.imbalance_ratio:g}: {max(run.train_counts)} to "
        f"{min(run.train_counts)} a class), {sum(run.test_counts)} test images, {run.model}, seed {run.seed}, "
        f"epsilon {run.epsilon:.4g}"
    )
    chosen = {k: v for k, v in run.options.items() if v is not None} | run.overrides
    if chosen:
        out.print(f"  settings: {', '.join(f'{k}={v}' for k, v in chosen.items())}")
    if run.policy != Policy():
        policy = ", ".join(f"{name}={value}" for name, value in run.policy.model_dump().items())
        out.print(f"  computed by: {policy}")
    note = unfit_note(run, [code_of(run, "training")])
    if note:
        out.print(f"  {note}", style="yellow", soft_wrap=True)
    out.print(f"  run folder: {folder}", soft_wrap=True)
    if (folder / "record.json").exists():
        out.print("  finished already")
        return
    if plan.base is not None and not (folder / "model.safetensors").exists():
        beside = runs_dir / plan.base.run.folder_name()
        if (beside / "model.safetensors").exists():
            out.print(f"  builds on: {beside}", soft_wrap=True)
        else:
            first = estimate(plan.base, device)
            out.print(
                f"  builds on: {beside}, which is trained first: {first.steps} steps, about "
                f"{duration(first.training_seconds)}",
                soft_wrap=True,
            )
    cost = estimate(plan, device)
    out.print(
        f"  cost: {cost.steps} steps ({recipe.epochs} epochs of {plan.steps_per_epoch}), {cost.training_images:,} "
        f"images forward and backward in training, about {cost.evaluation_images:,} in the evaluation (if "
        f"{ASSUMED_ROBUST:.0%} survive)"
    )
    out.print(
        f"  time on {device_name(str(device))}: about {duration(cost.training_seconds)} + "
        f"{duration(cost.evaluation_seconds)}"
    )
    if cost.seconds > LONG:
        out.print(f"  This will take about {duration(cost.seconds)} on this machine.", style="bold yellow")
        out.print(
            "  It can be interrupted at any moment; the same command goes on. A GPU is much faster; --epochs, "
            "--limit-train and --limit-test make a reduced run."
        )
