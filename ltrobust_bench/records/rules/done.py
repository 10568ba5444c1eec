"""What was done for a record: steps, work, with what and when, and what was measured."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from ltrobust_bench.cards import share_of
from ltrobust_bench.plan.code import worst
from ltrobust_bench.records.rules.case import Case, Findings, equal
from ltrobust_bench.records.strict import finding

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(days=1)
ROUNDING = 1e-6


def base(case: Case) -> Findings:
    """A run names the run it builds on, and its cost, if and only if its card asks for one."""
    if case.current_card is None:
        return
    needed = case.current_card.base is not None
    allowed = "is missing: the card builds on a finished run" if needed else "must be absent: the card has no base"
    if (case.run.base_key is not None) != needed:
        yield finding("run.base_key", allowed, case.run.base_key)
    if (case.record.cost.base is not None) != needed:
        yield finding("cost.base", allowed, case.record.cost.base and "a cost")


def budget(case: Case) -> Findings:
    """Optimiser steps are those of the recipe, with those of the run it builds on."""
    run, seen = case.run, case.record.cost.optimizer_steps
    own = run.steps_per_epoch * run.recipe.epochs
    before = _steps_before(case)
    if run.base_key is None:
        yield from equal("cost.optimizer_steps", seen, own, f"{run.recipe.epochs} epochs of {run.steps_per_epoch}")
    elif before is not None:
        why = f"{run.recipe.epochs} epochs of {run.steps_per_epoch}, and {before} before"
        yield from equal("cost.optimizer_steps", seen, own + before, why)
    elif seen <= own:
        yield finding("cost.optimizer_steps", f"must be above its own {own}: it builds on a finished run", seen)


def _steps_before(case: Case) -> int | None:
    """Optimiser steps of the run it builds on; None if they are not known."""
    card, protocol, run = case.current_card, case.protocol, case.run
    if card is None or card.base is None or protocol is None or run.track != "fixed":
        return None
    recipe = protocol.training
    epochs = share_of(card.base.budget, run.epochs or recipe.epochs)
    return run.model_copy(update={"recipe": recipe}).steps_per_epoch * epochs


def work(case: Case) -> Findings:
    """Nothing was computed with less work than it takes at the very least."""
    record, cost = case.record, case.record.cost
    standing = int(record.bits("clean").sum())
    least: dict[str, float] = {
        # Every image once, and what each attack made of every image classified correctly; at least one gradient there.
        "evaluation.forwards": sum(case.run.test_counts) + standing * len(record.attacks),
        "evaluation.backwards": standing,
        "training.forwards": cost.optimizer_steps,
        "training.backwards": cost.optimizer_steps,
    }
    if cost.base is not None:
        for name in ("forwards", "backwards", "seconds"):
            least[f"training.{name}"] = max(least.get(f"training.{name}", 0), getattr(cost.base, name))
    for field, floor in least.items():
        section, _, name = field.partition(".")
        seen = getattr(getattr(cost, section), name)
        if seen < floor:
            yield finding(f"cost.{field}", f"must be at least {floor:g}", seen)
    for section in ("training", "evaluation"):
        if (seconds := getattr(cost, section).seconds) <= 0:
            yield finding(f"cost.{section}.seconds", "must be above 0", seconds)


def searched(case: Case) -> Findings:
    """A search on a copy of the network says how it went, and all that is broken was broken by it or by the second
    search."""
    record, result = case.record, case.record.result
    if result.searched is None:
        # Of copies in float32, which are the network up to rounding, it was once not counted.
        if result.search in ("tf32", "bf16"):
            yield finding("result.searched", "is missing: the search was in reduced precision", None)
        return
    if result.search == "network":
        yield finding("result.searched", "belongs to a search on a copy", "counts")
        return
    counts = result.searched
    if counts.broken_again > counts.unconfirmed:
        allowed = f"must be at most {counts.unconfirmed}, the unconfirmed"
        yield finding("result.searched.broken_again", allowed, counts.broken_again)
    broken = sum(int((record.bits("clean") & ~record.bits(name)).sum()) for name in record.attacks)
    found = counts.confirmed + counts.broken_again
    yield from equal("result.searched.confirmed", found, broken, "with broken_again what the bits say is broken")


def environment(case: Case) -> Findings:
    """Made with this package's precision, at a possible time."""
    record, env = case.record, case.record.environment
    yield from equal("environment.tf32", env.tf32, False, "verdicts are made in full float32")
    yield from equal("environment.precision", env.precision, case.run.recipe.precision, "the recipe's")
    if env.code:
        last = env.code[-1]
        yield from equal("environment.git_dirty", env.git_dirty, worst(env.code), "the worst of its sessions")
        yield from equal("environment.git_commit", env.git_commit, last.commit, "the last session's")
        yield from equal("environment.package_version", env.package_version, last.package_version, "the last session's")
    for name in ("package_version", "python", "torch", *(["pyautoattack"] if record.broken_by() is not None else [])):
        value = getattr(env, name)
        if not re.match(r"[0-9]+\.[0-9]+", value or ""):
            yield finding(f"environment.{name}", "must be a version, for instance 2.6.0", value)
    if not env.device.strip():
        yield finding("environment.device", "must name the processor or accelerator", env.device)
    try:
        created = datetime.strptime(env.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        created = None
    if created is None or not env.created.isascii():
        yield finding("environment.created", "must be a time, YYYY-MM-DDTHH:MM:SSZ", env.created)
    elif not FIRST_DAY <= created <= case.now + CLOCK_SKEW:
        allowed = f"must lie between {FIRST_DAY:%Y-%m-%d} and now ({case.now:%Y-%m-%d})"
        yield finding("environment.created", allowed, env.created)


def reliability(case: Case) -> Findings:
    """What was measured is possible for so many images and classes."""
    measured, run = case.record.reliability, case.run
    if measured is None:
        return
    images = measured.images
    if images > sum(run.test_counts):
        yield finding("reliability.images", f"must be at most {sum(run.test_counts)}, the test set", images)
    chance = 1 / len(run.train_counts)
    if measured.confidence < chance - ROUNDING:
        yield finding("reliability.confidence", f"must be at least {chance:g}: classes share 1", measured.confidence)
    accuracies = {f"accuracy_by_radius.{radius}": value for radius, value in measured.accuracy_by_radius.items()}
    for name, value in {"accuracy_at_half": measured.accuracy_at_half, **accuracies}.items():
        if not math.isclose(value * images, round(value * images), abs_tol=ROUNDING * images):
            yield finding(f"reliability.{name}", f"must be a share of {images} images", value)
