"""What a record says of its run, compared with what is known: protocol, data set, card, options, recipe, split."""

from __future__ import annotations

from functools import cache, partial

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.known import known_split
from ltrobust_bench.data.registry import dataset_spec, protocol_for
from ltrobust_bench.data.split import long_tailed_counts
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.registry import models
from ltrobust_bench.numbers import number
from ltrobust_bench.plan.make import plugin_cards
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.protocol.resolve import SWITCHES, effective_overrides, recipe_settings, share_of, stated
from ltrobust_bench.protocol.spec import is_own, terms_key
from ltrobust_bench.records.rules.case import Case, Findings, equal
from ltrobust_bench.records.strict import finding


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
        yield from equal("run.protocol_digest", run.protocol_digest, digest, why)
    if run.model not in models:
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
    if (is_own(run.dataset) or spec.listed) != (run.source_sha256 is not None):
        yield finding("run.source_sha256", "belongs to folders and lists of images alone", run.source_sha256)


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
        yield from equal("run.plugins", run.plugins, ordered, "the order of their cards")


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
            yield from equal(f"run.options.{name}", value, parsed, f"written as its type, {known[name].type}")


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
    yield from equal("run.recipe", run.recipe.model_dump(), wanted.model_dump(), why)


def _misstated_overrides(run: RunSection) -> Findings:
    used = stated(run.recipe.model_dump())
    for name, value in run.overrides.items():
        if name not in recipe_settings():
            yield finding(f"run.overrides.{name}", "is no recipe setting", value)
        elif name not in SWITCHES:
            yield from equal(f"run.overrides.{name}", value, used.get(name), "as the recipe holds it")


def terms(case: Case) -> Findings:
    """Radius, augmentation, and attacks are the protocol's."""
    if case.protocol is None or case.terms is None:
        return
    run, why = case.run, f"as protocol {case.run.protocol} says for {case.run.dataset}"
    yield from equal("run.threat_model", run.threat_model, case.protocol.threat_model, why)
    yield from equal("run.epsilon", run.epsilon, number(case.terms.epsilon), why)
    augmentation = {"crop_padding": case.terms.crop_padding, "flip": case.terms.flip}
    yield from equal("run.augmentation", run.augmentation.model_dump(), augmentation, why)
    suite = {attack.named(len(run.test_counts)) for attack in case.protocol.evaluation.attacks}
    if set(case.record.attacks) != suite:
        seen = ", ".join(case.record.attacks)
        yield finding("result.bits", f"must be clean and exactly the attacks {', '.join(sorted(suite))}", seen)


def split(case: Case) -> Findings:
    """Images per class follow from data set, profile and ratio; the index digests too, where they are known."""
    run = case.run
    if run.profile == "own":
        ratio = round(max(run.train_counts) / min(run.train_counts), 2)
        yield from equal("run.imbalance_ratio", run.imbalance_ratio, ratio, "largest over smallest class")
    if case.protocol is None or case.terms is None:
        return
    order = None if case.terms.class_order is None else tuple(case.terms.class_order)
    try:
        known = known_split(
            run.dataset,
            run.asked_ratio,
            run.profile,
            order,
            case.protocol.test_images(run.dataset),
            run.limit_train,
            run.limit_test,
            run.holdout,
        )
        if known is None and run.profile in ("exp", "step") and not {"limit_train", "holdout"} & run.cuts.keys():
            # Whatever the images are, the largest class fixes the others.
            counts = long_tailed_counts(max(run.train_counts), len(run.train_counts), run.imbalance_ratio, run.profile)
            yield from equal("run.train_counts", run.train_counts, counts, "what profile and imbalance ratio give")
    except UsageError as error:
        yield finding("run.imbalance_ratio", str(error), run.imbalance_ratio)
        return
    if known is None:
        if run.profile == "balanced" and len(set(run.train_counts)) > 1:
            yield finding("run.train_counts", "must be equal in profile balanced", run.train_counts)
        return
    why = f"what {run.dataset} has in this split"
    yield from equal("run.train_counts", run.train_counts, known.train_counts, why)
    yield from equal("run.test_counts", run.test_counts, known.test_counts, why)
    if known.train_sha256 is not None:
        yield from equal("run.train_index_sha256", run.train_index_sha256, known.train_sha256, why)
    if known.test_sha256 is not None:
        yield from equal("run.test_index_sha256", run.test_index_sha256, known.test_sha256, why)
