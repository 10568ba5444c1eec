"""Mutations that must be accepted: nobody can say that they are wrong, so nobody may."""

from __future__ import annotations

import json
import random

import numpy as np

from ltrobust_bench.cards import methods
from ltrobust_bench.scores.bits import pack, unpack
from record_mutations.tools import (
    NotApplicableError,
    Sample,
    another_seed,
    bits_of,
    confirm,
    hexadecimal,
    more,
    mutation,
    sets,
)


@mutation("record")
def nothing(sample: Sample, rng: random.Random) -> None:
    pass


@mutation("file")
def other_layout(sample: Sample, rng: random.Random) -> None:
    text = json.dumps(sample.raw, indent=rng.choice([None, 0, 4]), sort_keys=rng.random() < 0.5)
    sample.data = (rng.choice(["", "\n", " \t\r\n"]) + text + rng.choice(["", "\n", "\r\n\r\n"])).encode()


@mutation("file")
def escaped_characters(sample: Sample, rng: random.Random) -> None:
    text = json.dumps(sample.raw).replace("fgsm", "\\u0066gs\\u006d").replace("/", "\\/")
    sample.data = text.encode()


@mutation("run")
def defaults_left_out(sample: Sample, rng: random.Random) -> None:
    run = sample.raw["run"]
    for name in ("limit_train", "limit_test", "epochs", "source_sha256"):
        if run.get(name, 1) is None and rng.random() < 0.5:
            del run[name]


@mutation("run")
def a_whole_number_for_a_float(sample: Sample, rng: random.Random) -> None:
    sample.raw["run"]["imbalance_ratio"] = int(sample.raw["run"]["imbalance_ratio"])


@mutation("run")
def an_option_that_the_card_allows(sample: Sample, rng: random.Random) -> None:
    run = sample.raw["run"]
    known = methods.get(run["method"]).card.options
    fitting = [n for n, o in known.items() if o.choices or (o.type == "float" and isinstance(run["options"][n], float))]
    if not fitting:
        raise NotApplicableError
    name = rng.choice(fitting)
    option, value = known[name], run["options"][name]
    if option.choices:
        run["options"][name] = rng.choice(option.choices)
    else:
        low, high = option.minimum or 0.0, option.maximum if option.maximum is not None else value + 1.0
        run["options"][name] = rng.uniform(low, high)


@mutation("run")
def an_override_that_is_owned_up_to(sample: Sample, rng: random.Random) -> None:
    run = sample.raw["run"]
    name, value = rng.choice([("lr", rng.uniform(0.001, 0.09)), ("weight_decay", rng.uniform(1e-6, 1e-4))])
    run["recipe"][name] = run.setdefault("overrides", {})[name] = value
    sample.raw["status"]["off_recipe"] = True


@mutation("result")
def fewer_images_withstand(sample: Sample, rng: random.Random) -> None:
    name = rng.choice([n for n in sample.raw["result"]["bits"] if n not in ("clean", "autoattack")])
    bits = bits_of(sample, name)
    chosen = rng.sample(range(len(bits)), 20)
    confirm(sample.raw, int(bits[chosen].sum()))
    bits[chosen] = 0
    sample.raw["result"]["bits"][name] = pack(bits, 1)


@mutation("result")
def autoattack_breaks_more(sample: Sample, rng: random.Random) -> None:
    bits = bits_of(sample, "autoattack")
    by = unpack(sample.raw["result"]["broken_by"], len(bits), 3)
    standing = np.flatnonzero(bits).tolist()
    if not standing:
        raise NotApplicableError
    chosen = list(set(rng.choices(standing, k=5)))
    confirm(sample.raw, len(chosen))
    bits[chosen], by[chosen] = 0, rng.randint(1, 4)
    sample.raw["result"]["bits"]["autoattack"], sample.raw["result"]["broken_by"] = pack(bits, 1), pack(by, 3)


@mutation("result")
def attacks_in_another_order(sample: Sample, rng: random.Random) -> None:
    pairs = list(sample.raw["result"]["bits"].items())
    rng.shuffle(pairs)
    sample.raw["result"]["bits"] = dict(pairs)


@mutation("reliability")
def reliability_absent(sample: Sample, rng: random.Random) -> None:
    if sample.raw.get("reliability") is None:
        raise NotApplicableError
    del sample.raw["reliability"]


@mutation("reliability")
def other_measurements(sample: Sample, rng: random.Random) -> None:
    sample.raw["reliability"] = {
        "images": (images := rng.randint(1, 200)),
        "randomness": rng.random(),
        "probabilities": rng.random() < 0.5,
        "confidence": rng.uniform(0.1, 1),
        "zero_gradients": rng.random(),
        "accuracy_at_half": rng.randint(0, images) / images,
        "accuracy_by_radius": {r: rng.randint(0, images) / images for r in ("0.25", "1", "4")},
        "batch_dependence": rng.random(),
        "state_changed": rng.random() < 0.5,
    }


@mutation("together")
def another_seed_beside_it(sample: Sample, rng: random.Random) -> None:
    another_seed(sample, rng)


sets("run", "another seed", "run/seed", lambda _, rng: rng.randrange(2**31))
sets("run", "another registered network", "run/model", "resnet18", "wrn-34-10")
sets("result", "other weights", "result/weights_sha256", hexadecimal(64))
sets("cost", "more work", "cost/training/forwards", more)
sets("cost", "more time", "cost/evaluation/seconds", more)
sets("environment", "another machine", "environment/device", "Prozessor® Ω-7 (CPU)", "NVIDIA H100 80GB HBM3", "x")
sets("environment", "more threads", "environment/threads", more)
sets("environment", "another day", "environment/created", "2024-02-29T23:59:59Z", "2025-01-01T00:00:00Z")


@mutation("environment")
def another_commit(sample: Sample, rng: random.Random) -> None:
    env = sample.raw["environment"]
    env["git_commit"] = hexadecimal(rng.choice([40, 64]))(None, rng)
    for session in env.get("code", [])[-1:]:
        session["commit"] = env["git_commit"]


sets("status", "trials", "status/trials", lambda _, rng: rng.randint(1, 8))
