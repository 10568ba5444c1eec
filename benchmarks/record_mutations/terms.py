"""Mutations of what protocol, data set and card fix: well-formed records of runs that cannot have been."""

from __future__ import annotations

import random

from record_mutations.tools import NotApplicableError, Sample, hexadecimal, mutation, sets

sets("run", "an unknown protocol", "run/protocol", "digits-v1", "mine", rule="known-protocol")
sets("run", "another protocol's digest", "run/protocol_digest", hexadecimal(64), rule="known-protocol")
sets("run", "a data set the protocol has not", "run/dataset", "cifar10-lt", "folder-x-32px", rule="known-protocol")
sets("run", "an unknown network", "run/model", "resnet-18", "small2", rule="known-protocol")
sets("run", "an unknown data set", "run/dataset", "digits", "digits-lt2", "folder-x-9999px", rule="known-dataset")
sets("run", "a digest of files that are registered", "run/source_sha256", hexadecimal(64), rule="known-dataset")
sets("run", "a class less", "run/train_counts", [124, 88, 63], rule="schema")
sets("run", "an unknown method", "run/method", "rebal", "awp", "at.", rule="known-card")
sets("run", "a card of the future", "run/card_version", 2, 10**15, rule="known-card")
sets("run", "an unknown plug-in", "run/plugins", ["awpp"], ["at"], rule="known-card")
sets("run", "a plug-in twice", "run/plugins", ["awp", "awp"], rule="known-card")
sets("run", "plug-ins in the wrong order", "run/plugins", ["awp", "robustlt"], rule="known-card")
sets("run", "an unknown option", "run/options/tune", 1.0, "x", None, rule="options")


@mutation("run", "options")
def an_option_is_missing(sample: Sample, rng: random.Random) -> None:
    options = sample.raw["run"]["options"]
    if not options:
        raise NotApplicableError
    del options[rng.choice(list(options))]


@mutation("run", "options")
def an_option_of_another_type(sample: Sample, rng: random.Random) -> None:
    options = sample.raw["run"]["options"]
    if not options:
        raise NotApplicableError
    name = rng.choice(list(options))
    options[name] = rng.choice(["many", True, 1]) if isinstance(options[name], float) else "no such value"


sets("run", "a learning rate unsaid", "run/recipe/lr", 0.05, 1.0, rule="recipe")
sets("run", "a stronger inner attack unsaid", "run/recipe/attack/steps", 0, 11, 20, rule="recipe")
sets("run", "a larger training radius unsaid", "run/recipe/attack/epsilon", 0.2, rule="recipe")
sets("run", "a longer training unsaid", "run/recipe/epochs", 120, 61, 10**5, rule="recipe")
sets("run", "an augmentation unsaid", "run/recipe/augment", "randaugment", rule="recipe")


@mutation("run", "recipe")
def an_override_that_overrides_nothing(sample: Sample, rng: random.Random) -> None:
    run = sample.raw["run"]
    name = rng.choice(["lr", "momentum", "weight_decay", "batch_size"])
    run.setdefault("overrides", {})[name] = run["recipe"][name]
    sample.raw["status"]["off_recipe"] = True


@mutation("run", "recipe")
def an_override_of_what_cannot_be(sample: Sample, rng: random.Random) -> None:
    overrides = sample.raw["run"].setdefault("overrides", {})
    overrides[rng.choice(["epochs", "model", "schedule.kind", "x.y", "attack", "__class__"])] = 1
    sample.raw["status"]["off_recipe"] = True


@mutation("run", "recipe")
def an_override_that_says_something_else(sample: Sample, rng: random.Random) -> None:
    name, value = rng.choice([("attack.epsilon", "1e99999999"), ("lr", None), ("attack.steps", "x"), ("nesterov", 3)])
    sample.raw["run"].setdefault("overrides", {})[name] = value
    sample.raw["status"]["off_recipe"] = True


sets("run", "another evaluation radius", "run/epsilon", 0.1, 8 / 255, 1.0, rule="terms")
sets("run", "another threat model", "run/threat_model", "L2", rule="terms")
sets("run", "another crop", "run/augmentation/crop_padding", 0, 4, rule="terms")
sets("run", "a flip", "run/augmentation/flip", True, rule="terms")


@mutation("result", "terms")
def an_attack_less(sample: Sample, rng: random.Random) -> None:
    bits = sample.raw["result"]["bits"]
    name = rng.choice([n for n in bits if n != "clean"])
    del bits[name]
    if name == "autoattack":
        sample.raw["result"]["broken_by"] = None


@mutation("result", "terms")
def an_attack_by_another_name(sample: Sample, rng: random.Random) -> None:
    bits = sample.raw["result"]["bits"]
    bits[rng.choice(["pgd-7", "square", "mim-7"])] = bits.pop("pgd-20") if rng.random() < 0.5 else bits["pgd-20"]


@mutation("run", "split")
def images_moved_between_classes(sample: Sample, rng: random.Random) -> None:
    counts = sample.raw["run"][rng.choice(["train_counts", "test_counts"])]
    one, other = rng.sample(range(10), 2)
    counts[one], counts[other] = counts[one] - 1, counts[other] + 1


sets("run", "another imbalance ratio", "run/imbalance_ratio", 10.0, 50.0, 1e300, rule="split")
sets("run", "other training images", "run/train_index_sha256", hexadecimal(64), rule="split")
sets("run", "other test images", "run/test_index_sha256", hexadecimal(64), rule="split")


@mutation("run", "split")
def another_profile(sample: Sample, rng: random.Random) -> None:
    run = sample.raw["run"]
    if run["imbalance_ratio"] == 1:  # where all profiles are the same
        raise NotApplicableError
    run["profile"] = rng.choice([name for name in ("exp", "step", "balanced", "own") if name != run["profile"]])


@mutation("run", "base")
def a_base_that_the_card_has_not(sample: Sample, rng: random.Random) -> None:
    run, cost = sample.raw["run"], sample.raw["cost"]
    if run.get("base_key") is None:
        run["base_key"] = hexadecimal(64)(None, rng)
    elif rng.random() < 0.5:
        run["base_key"] = None
    else:
        cost["base"] = None
