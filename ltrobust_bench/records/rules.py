"""What must hold of one record, as executable rules.

A rule is a function of a :class:`Case` that yields what it finds wrong, and nothing for an honest record. Whatever
protocol, card and data set fix is compared with them; what a rule cannot know are the bits themselves, the seconds and
the names of machines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

from ltrobust_bench.cards import Card, methods, plugins
from ltrobust_bench.data.known import known_split
from ltrobust_bench.data.registry import dataset_spec, protocol_for
from ltrobust_bench.data.split import long_tailed_counts
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.registry import models
from ltrobust_bench.numbers import number
from ltrobust_bench.plan.make import plugin_cards
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import DatasetTerms, Protocol, load_protocol, protocols
from ltrobust_bench.protocol.resolve import SWITCHES, effective_overrides, recipe_settings, share_of, stated
from ltrobust_bench.protocol.spec import FOLDER, terms_key
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.strict import Finding, finding

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(days=1)
ROUNDING = 1e-6
Findings = Iterator[Finding]


@dataclass(frozen=True)
class Case:
    """A record, and what is known of its terms.

    Attributes:
        record: the record.
        protocol: its protocol; None if it is unknown or says nothing about the data set.
        card: its method's card; None if it is unknown.
        place: where it lies below a folder ``records``; None if it lies in none, and no board shows it.
        now: the time of the examination.
    """

    record: Record
    protocol: Protocol | None
    card: Card | None
    place: str | None
    now: datetime

    @classmethod
    def of(cls, record: Record, place: str | None, now: datetime) -> Case:
        run = record.run
        protocol = protocol_for(run.dataset, run.protocol) if run.protocol in protocols else None
        if protocol is not None and terms_key(run.dataset) not in protocol.datasets:
            protocol = None
        card = methods.get(run.method).card if run.method in methods else None
        return cls(record, protocol, card, place, now)

    @property
    def run(self) -> RunSection:
        return self.record.run

    @property
    def terms(self) -> DatasetTerms | None:
        return None if self.protocol is None else self.protocol.terms(self.run.dataset)

    @property
    def current_card(self) -> Card | None:
        """The card, if it is of the record's version: what an older one said is not known any more."""
        return self.card if self.card is not None and self.card.version == self.run.card_version else None


def _equal(field: str, seen: Any, wanted: Any, why: str) -> Findings:
    """``seen`` must be ``wanted``; of mappings and lists of the same length the parts that differ are named."""
    if isinstance(seen, Mapping) and isinstance(wanted, Mapping) and seen.keys() == wanted.keys():
        for key in seen:
            yield from _equal(f"{field}.{key}", seen[key], wanted[key], why)
    elif seen != wanted or type(seen) is not type(wanted):
        yield finding(field, f"must be {wanted!r}, {why}", seen)


def _among(field: str, name: str, names: list[str], what: str) -> Findings:
    if name not in names:
        yield finding(field, f"must be {what}: {', '.join(names)}", name)


@cache
def _digest(protocol: str, dataset: str) -> str:
    return protocol_for(dataset, protocol).digest(dataset)


def known_protocol(case: Case) -> Findings:
    """Protocol, data set and network are installed, and the protocol is the one of that name."""
    run = case.run
    yield from _among("run.protocol", run.protocol, protocols.names(), "an installed protocol")
    if run.protocol in protocols and case.protocol is None:
        covered = sorted(load_protocol(run.protocol).datasets)
        yield from _among("run.dataset", terms_key(run.dataset), covered, f"a data set of protocol {run.protocol}")
    if case.protocol is not None:
        why = f"the digest of {run.protocol} for {run.dataset}"
        digest = _digest(run.protocol, terms_key(run.dataset))
        yield from _equal("run.protocol_digest", run.protocol_digest, digest, why)
    yield from _among("run.model", run.model, models.names(), "a registered network")


def known_dataset(case: Case) -> Findings:
    """The data set exists and has that many classes; a folder of images is identified by its files' digest."""
    run = case.run
    try:
        spec = dataset_spec(run.dataset)
    except UsageError as error:
        yield finding("run.dataset", str(error), run.dataset)
        return
    if spec.classes is not None and len(run.train_counts) != spec.classes:
        yield finding("run.train_counts", f"must have {spec.classes} classes", run.train_counts)
    if run.dataset.startswith(f"{FOLDER}-") != (run.source_sha256 is not None):
        yield finding("run.source_sha256", "belongs to folders of images, and only to them", run.source_sha256)


def known_card(case: Case) -> Findings:
    """Method and plug-ins have cards, no newer than the installed ones, and go together in this order."""
    run = case.run
    yield from _among("run.method", run.method, methods.names(), "a method with a card")
    if case.card is not None and run.card_version > case.card.version:
        yield finding("run.card_version", f"must be at most {case.card.version}, the card's", run.card_version)
    try:
        ordered = [card.slug for card in plugin_cards(run.method, run.plugins)]
    except UsageError as error:
        yield finding("run.plugins", str(error), "+".join(run.plugins))
    else:
        yield from _equal("run.plugins", run.plugins, ordered, "the order of their cards")


def options(case: Case) -> Findings:
    """Exactly the options of the cards, each with a value it can have."""
    run, card = case.run, case.current_card
    if card is None or any(name not in plugins for name in run.plugins):
        return
    known = dict(card.options)
    for name in run.plugins:
        known |= {f"{name}.{own}": option for own, option in plugins.get(name).card.options.items()}
    for name in sorted(run.options.keys() ^ known.keys()):
        wanted = "is missing" if name in known else "is no option of this method and its plug-ins"
        yield finding(f"run.options.{name}", wanted, run.options.get(name, "nothing"))
    for name in sorted(run.options.keys() & known.keys()):
        value = run.options[name]
        try:
            parsed = known[name].parse(name, value)
        except UsageError as error:
            yield finding(f"run.options.{name}", str(error), value)
        else:
            yield from _equal(f"run.options.{name}", value, parsed, f"written as its type, {known[name].type}")


def recipe(case: Case) -> Findings:
    """The recipe is what protocol, card, track and overrides give; overrides are settings that change something."""
    run, card, protocol = case.run, case.card, case.protocol
    if card is None or protocol is None:
        return
    misstated = list(_misstated_overrides(run))
    yield from misstated
    words_of_a_card = run.track == "paper" or run.overrides.keys() & SWITCHES.keys()
    if misstated or (case.current_card is None and words_of_a_card):
        return
    recipe_with = partial(card.resolve_recipe, protocol, run.track, run.epsilon)
    try:
        wanted, effective = recipe_with(run.overrides), effective_overrides(run.overrides, recipe_with)
    except UsageError as error:
        yield finding("run.overrides", str(error), ", ".join(run.overrides))
        return
    for name in sorted(run.overrides.keys() - effective.keys()):
        yield finding(f"run.overrides.{name}", "changes nothing and is left out", run.overrides[name])
    epochs = wanted.epochs if run.epochs is None or not wanted.epochs else share_of(card.budget, run.epochs)
    if case.current_card is None:  # an older card's share of the budget is not known
        epochs = min(run.recipe.epochs, protocol.training.epochs)
    wanted = wanted.model_copy(update={"epochs": epochs})
    why = f"as protocol {run.protocol} and card {run.method} say in track {run.track}"
    yield from _equal("run.recipe", run.recipe.model_dump(), wanted.model_dump(), why)


def _misstated_overrides(run: RunSection) -> Findings:
    used = stated(run.recipe.model_dump())
    for name, value in run.overrides.items():
        if name not in recipe_settings():
            yield finding(f"run.overrides.{name}", "is no recipe setting", value)
        elif name not in SWITCHES:
            yield from _equal(f"run.overrides.{name}", value, used.get(name), "as the recipe holds it")


def terms(case: Case) -> Findings:
    """Radius, augmentation, and attacks are the protocol's."""
    if case.protocol is None or case.terms is None:
        return
    run, why = case.run, f"as protocol {case.run.protocol} says for {case.run.dataset}"
    yield from _equal("run.threat_model", run.threat_model, case.protocol.threat_model, why)
    yield from _equal("run.epsilon", run.epsilon, number(case.terms.epsilon), why)
    augmentation = {"crop_padding": case.terms.crop_padding, "flip": case.terms.flip}
    yield from _equal("run.augmentation", run.augmentation.model_dump(), augmentation, why)
    suite = {attack.named(len(run.test_counts)) for attack in case.protocol.evaluation.attacks}
    if set(case.record.attacks) != suite:
        seen = ", ".join(case.record.attacks)
        yield finding("result.bits", f"must be clean and exactly the attacks {', '.join(sorted(suite))}", seen)


def split(case: Case) -> Findings:
    """Images per class follow from data set, profile and ratio; the index digests too, where they are known."""
    run = case.run
    if run.profile == "own":
        ratio = round(max(run.train_counts) / min(run.train_counts), 2)
        yield from _equal("run.imbalance_ratio", run.imbalance_ratio, ratio, "largest over smallest class")
    if case.protocol is None or case.terms is None:
        return
    order = None if case.terms.class_order is None else tuple(case.terms.class_order)
    try:
        known = known_split(
            run.dataset,
            run.asked_ratio,
            run.profile,
            order,
            case.protocol.test_images_per_class,
            run.limit_train,
            run.limit_test,
            run.holdout,
        )
        if known is None and run.profile in ("exp", "step") and not {"limit_train", "holdout"} & run.cuts.keys():
            # Whatever the images are, the largest class fixes the others.
            counts = long_tailed_counts(max(run.train_counts), len(run.train_counts), run.imbalance_ratio, run.profile)
            yield from _equal("run.train_counts", run.train_counts, counts, "what profile and imbalance ratio give")
    except UsageError as error:
        yield finding("run.imbalance_ratio", str(error), run.imbalance_ratio)
        return
    if known is None:
        if run.profile == "balanced" and len(set(run.train_counts)) > 1:
            yield finding("run.train_counts", "must be equal in profile balanced", run.train_counts)
        return
    why = f"what {run.dataset} has in this split"
    yield from _equal("run.train_counts", run.train_counts, known.train_counts, why)
    yield from _equal("run.test_counts", run.test_counts, known.test_counts, why)
    if known.train_sha256 is not None:
        yield from _equal("run.train_index_sha256", run.train_index_sha256, known.train_sha256, why)
    if known.test_sha256 is not None:
        yield from _equal("run.test_index_sha256", run.test_index_sha256, known.test_sha256, why)


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
        yield from _equal("cost.optimizer_steps", seen, own, f"{run.recipe.epochs} epochs of {run.steps_per_epoch}")
    elif before is not None:
        why = f"{run.recipe.epochs} epochs of {run.steps_per_epoch}, and {before} before"
        yield from _equal("cost.optimizer_steps", seen, own + before, why)
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


def environment(case: Case) -> Findings:
    """Made with this package's precision, at a possible time."""
    record, env = case.record, case.record.environment
    yield from _equal("environment.tf32", env.tf32, False, "verdicts are made in full float32")
    yield from _equal("environment.precision", env.precision, case.run.recipe.precision, "the recipe's")
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


def place(case: Case) -> Findings:
    """A filed record lies where its run says, so that the same run cannot be filed twice."""
    if case.place is not None and case.place != case.run.record_path():
        yield finding("file", f"must lie at {case.run.record_path()} below the records folder", case.place)


def full(case: Case) -> Findings:
    """No reduced run and no smoke test stands on a board."""
    if case.place is None:
        return
    if case.run.reduced:
        cut = ", ".join(f"{name} {value}" for name, value in case.run.cuts.items())
        yield finding("status.reduced", "reduced runs join no board", cut)
    if case.protocol is not None and case.protocol.status == "smoke":
        yield finding("run.protocol", "smoke tests join no board", case.run.protocol)


def provenance(case: Case) -> Findings:
    """A filed record names the commit it was made with, and that commit is the whole truth."""
    if case.place is None:
        return
    env = case.record.environment
    if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", env.git_commit or ""):
        yield finding("environment.git_commit", "must be a full commit: run it from a git checkout", env.git_commit)
    if env.git_dirty is not False:
        allowed = "must be false: commit the changes in ltrobust_bench/ and baselines/, then run it"
        yield finding("environment.git_dirty", allowed, env.git_dirty)


RULES: dict[str, Callable[[Case], Findings]] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        known_protocol,
        known_dataset,
        known_card,
        options,
        recipe,
        terms,
        split,
        base,
        budget,
        work,
        environment,
        reliability,
        place,
        full,
        provenance,
    )
}
"""By name, in the order in which they are applied."""
