"""Mutations of cost, environment and place, and of records beside one another."""

from __future__ import annotations

import copy
import random

from ltrobust_bench.plan.run import CUTS
from ltrobust_bench.protocol import load_protocol
from record_mutations.tools import (
    Json,
    NotApplicableError,
    Sample,
    another_seed,
    clear_a_bit,
    hexadecimal,
    more,
    mutation,
    sets,
)

sets("cost", "steps beyond the budget", "cost/optimizer_steps", more, rule="budget")
sets("cost", "no steps", "cost/optimizer_steps", 0, rule="budget")
sets("cost", "attacks without work", "cost/evaluation/forwards", 0, 500, rule="work")
sets("cost", "attacks without gradients", "cost/evaluation/backwards", 0, 10, rule="work")
sets("cost", "training without work", "cost/training/forwards", 0, 100, rule="work")
sets("cost", "training in no time", "cost/training/seconds", 0, 0.0, rule="work")
sets("cost", "a base that cost more than all", "cost/base/forwards", 10**9, rule="work")
sets("environment", "reduced precision", "environment/tf32", True, rule="environment")
sets("environment", "half precision", "environment/precision", "fp16", "", rule="environment")
sets("environment", "no AutoAttack installed", "environment/pyautoattack", None, "", rule="environment")
sets("environment", "no version", "environment/torch", "", "new", rule="environment")
sets("environment", "no machine", "environment/device", "", "  ", rule="environment")
sets("environment", "a day that is none", "environment/created", "2025-13-01T00:00:00Z", "2025-02-29T00:00:00Z",
     "0000-01-01T00:00:00Z", "2025-01-01T25:00:00Z", rule="environment")  # fmt: skip
sets(
    "environment",
    "a day to come",
    "environment/created",
    "2999-01-01T00:00:00Z",
    rule="environment",
)
sets("environment", "a day long gone", "environment/created", "2023-12-31T23:59:59Z", rule="environment")
sets("environment", "no commit", "environment/git_commit", None, "", "main", "abc1234", rule="provenance")
sets("environment", "uncommitted changes", "environment/git_dirty", True, None, rule="provenance")
sets("reliability", "more images than there are", "reliability/images", 501, 10**9, rule="reliability")
sets("reliability", "less sure than chance", "reliability/confidence", 0.0, 0.09, rule="reliability")
sets("reliability", "half an image", "reliability/accuracy_at_half", 0.0025, 1 / 3, rule="reliability")


@mutation("result", "searched")
def a_search_that_did_not_go_as_it_says(sample: Sample, rng: random.Random) -> None:
    result = sample.raw["result"]
    counts = {"confirmed": rng.randrange(3), "unconfirmed": 0, "broken_again": 0}
    result["search"], result["searched"] = rng.choice(
        [
            ("tf32", None),
            ("bf16", None),
            ("network", counts),
            ("folded", counts),
            ("folded", counts | {"broken_again": 5}),
        ]
    )


@mutation("environment", "environment")
def a_session_that_was_not_clean(sample: Sample, rng: random.Random) -> None:
    rng.choice(_sessions(sample))["dirty"] = True


@mutation("environment", "provenance")
def a_method_edited_before_it_was_attacked(sample: Sample, rng: random.Random) -> None:
    _sessions(sample)[-1]["method_sha256"] = hexadecimal(64)(None, rng)


@mutation("environment", "provenance")
def a_training_that_nobody_saw(sample: Sample, rng: random.Random) -> None:
    sessions = _sessions(sample)
    sessions[:] = [session for session in sessions if session["work"] != "training"]


def _sessions(sample: Sample) -> list[Json]:
    sessions: list[Json] = sample.raw["environment"].get("code", [])
    if not sessions:
        raise NotApplicableError
    return sessions


@mutation("status", "full")
def a_reduced_run_among_full_ones(sample: Sample, rng: random.Random) -> None:
    cut = rng.choice(CUTS)
    sample.raw["run"][cut] = "val" if cut == "holdout" else rng.randint(10, 10**6)
    sample.raw["status"]["reduced"] = True


@mutation("run", "full")
def a_smoke_test_among_full_runs(sample: Sample, rng: random.Random) -> None:
    protocol = load_protocol("smoke")
    sample.raw["run"].update(protocol="smoke", protocol_digest=protocol.digest("digits-lt"))


@mutation("file", "place")
def filed_somewhere_else(sample: Sample, rng: random.Random) -> None:
    sample.place = rng.choice(["x.json", "digits-v0/x.json", "digits-v0/digits-lt-ir20/at/small-s0-00000000.json"])


@mutation("together", "one-file-a-run")
def the_same_run_twice(sample: Sample, rng: random.Random) -> None:
    sample.beside.append(copy.deepcopy(sample.raw))
    clear_a_bit(sample, rng)
    sample.place = "again.json"


@mutation("together", "weights-of-one-seed")
def the_same_weights_for_another_seed(sample: Sample, rng: random.Random) -> None:
    sample.beside.append(copy.deepcopy(sample.raw))
    sample.raw["run"]["seed"] += rng.randint(1, 1000)


@mutation("together", "equal-bits")
def the_same_bits_for_another_seed(sample: Sample, rng: random.Random) -> None:
    if len(set(sample.raw["result"]["bits"].values())) == 1:  # it has one answer to every image, as others may have
        raise NotApplicableError
    sample.beside.append(copy.deepcopy(sample.raw))
    sample.raw["run"]["seed"] += rng.randint(1, 1000)
    sample.raw["result"]["weights_sha256"] = hexadecimal(64)(None, rng)


@mutation("together", "one-name-a-split")
def the_same_split_under_another_ratio(sample: Sample, rng: random.Random) -> None:
    another_seed(sample, rng)
    sample.raw["run"]["imbalance_ratio"] += 1e-9 * rng.randint(1, 1000)


@mutation("together", "one-split")
def other_images_than_the_others(sample: Sample, rng: random.Random) -> None:
    another_seed(sample, rng)
    another_seed(sample, rng)
    sample.raw["run"]["train_index_sha256"] = hexadecimal(64)(None, rng)
