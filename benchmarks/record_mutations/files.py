"""Mutations of files that hold no record, and of fields, types, ranges, and bits against one another."""

from __future__ import annotations

import json
import random

import numpy as np

from ltrobust_bench.records.schema import Record
from ltrobust_bench.scores.bits import pack, unpack
from record_mutations.tools import NotApplicableError, Sample, bits_of, leaves, mappings, mutation, sets, walk


@mutation("file", "json")
def cut_off(sample: Sample, rng: random.Random) -> None:
    data = json.dumps(sample.raw).encode()
    sample.data = data[: rng.randrange(len(data))]


@mutation("file", "json")
def something_after_the_end(sample: Sample, rng: random.Random) -> None:
    sample.data = json.dumps(sample.raw).encode() + rng.choice([b"}", b"{}", b"\0", b"null"])


@mutation("file", "json")
def bytes_that_are_no_text(sample: Sample, rng: random.Random) -> None:
    data = json.dumps(sample.raw).encode()
    place = rng.randrange(len(data))
    sample.data = rng.choice(
        [data[:place] + b"\xff" + data[place:], b"\xef\xbb\xbf" + data, data.decode().encode("utf-16")]
    )


@mutation("file", "json")
def a_key_that_stands_twice(sample: Sample, rng: random.Random) -> None:
    name = rng.choice(["seed", "digest", "forwards", "schema_version"])
    sample.data = json.dumps(sample.raw).replace(f'"{name}"', f'"{name}": 0, "{name}"', 1).encode()


@mutation("file", "json")
def a_number_that_is_none(sample: Sample, rng: random.Random) -> None:
    parent, key = rng.choice([pair for pair in leaves(sample.raw) if isinstance(pair[0][pair[1]], (int, float))])
    parent[key] = "@"
    number = rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-" + "7" * 19])
    sample.data = json.dumps(sample.raw).replace('"@"', number).encode()


@mutation("file", "json")
def nested_without_end(sample: Sample, rng: random.Random) -> None:
    depth = rng.choice([5_000, 100_000])
    sample.data = rng.choice([b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth])


@mutation("file", "json")
def larger_than_any_record(sample: Sample, rng: random.Random) -> None:
    sample.data = json.dumps(sample.raw).encode() + b" " * 1_000_001


@mutation("file", "json")
def characters_that_do_not_print(sample: Sample, rng: random.Random) -> None:
    parent, key = rng.choice([pair for pair in leaves(sample.raw) if isinstance(pair[0][pair[1]], str)])
    odd = rng.choice(["\x1b[2J", "\u202e", "\n", "\0", "\ud800", "\u200b"])
    parent[key] = parent[key][:3] + odd + parent[key][3:]


@mutation("any", "schema")
def a_field_is_missing(sample: Sample, rng: random.Random) -> None:
    required = [(part, key) for part in mappings(sample.raw) for key in part if key not in OPTIONAL]
    part, key = rng.choice([pair for pair in required if pair[1] != "schema_version"])
    del part[key]


def _optional() -> set[str]:
    schema = Record.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    return {name for part in parts for name in part.get("properties", {}) if name not in part.get("required", ())}


OPTIONAL = _optional() | {f"{factor:g}" for factor in (0.25, 0.5, 1, 2, 4)}
"""Keys that may be left out somewhere."""


@mutation("any", "schema")
def an_unknown_field(sample: Sample, rng: random.Random) -> None:
    parts = [part for part in mappings(sample.raw) if "0.25" not in part]
    rng.choice(parts)[rng.choice(["note", "", "Seed", "seed ", "__class__"])] = rng.choice([None, 0, "x", [], {}])


@mutation("any", "schema")
def a_value_of_another_kind(sample: Sample, rng: random.Random) -> None:
    parent, key = rng.choice([pair for pair in leaves(sample.raw) if pair[1] != "schema_version"])
    parent[key] = rng.choice([{"a": 1}, [[]], {}])


@mutation("any", "schema")
def a_switch_for_a_number(sample: Sample, rng: random.Random) -> None:
    numbers = [p for p in leaves({**sample.raw, "schema_version": "1"}) if type(p[0][p[1]]) in (int, float)]
    parent, key = rng.choice([(p, k) for p, k in numbers if p is not sample.raw["run"]["options"]])
    parent[key] = rng.choice([True, "1", None]) if key not in OPTIONAL else True


@mutation("any", "schema")
def a_negative_number(sample: Sample, rng: random.Random) -> None:
    paths = ["run/seed", "run/epsilon", "run/imbalance_ratio", "run/card_version", "cost/training/forwards",
             "cost/evaluation/seconds", "environment/threads", "status/trials", "run/recipe/lr"]  # fmt: skip
    parent, key = walk(sample.raw, rng.choice(paths))
    parent[key] = -type(parent[key])(rng.randint(1, 9))


sets("record", "another schema version", "schema_version", 0, 2, "1", 1.0, True, None, rule="schema")
sets("record", "a section is gone", "cost", None, [], {}, "x", rule="schema")
sets("run", "a name that climbs folders", "run/dataset", "../../x", "a/b", "", "A", "x" * 101, rule="schema")
sets("run", "counts of nothing", "run/test_counts", [], [50], [0] * 10, [10**12] * 10, rule="schema")
sets("result", "a text that is no base64", "result/bits/fgsm", "////", "", "é", "A" * 84 + "!", rule="schema")
sets("reliability", "a radius that is no number", "reliability/accuracy_by_radius/nan", 0.5, rule="schema")
sets("reliability", "more than everything", "reliability/accuracy_at_half", 1.5, -0.1, rule="schema")
sets("environment", "a long text", "environment/device", "x" * 201, "x" * 10**5, rule="schema")


@mutation("result", "schema")
def bits_that_were_edited(sample: Sample, rng: random.Random) -> None:
    fewer_images_withstand_again(sample, rng)
    sample.sealed = False


def fewer_images_withstand_again(sample: Sample, rng: random.Random) -> None:
    bits = bits_of(sample, "fgsm")
    bits[rng.choice(np.flatnonzero(bits).tolist())] = 0
    sample.raw["result"]["bits"]["fgsm"] = pack(bits, 1)


@mutation("result", "schema")
def robust_but_wrong_when_clean(sample: Sample, rng: random.Random) -> None:
    name = rng.choice([n for n in sample.raw["result"]["bits"] if n != "clean"])
    bits = bits_of(sample, name)
    wrong = np.flatnonzero(bits_of(sample, "clean") == 0)
    if not len(wrong):
        raise NotApplicableError
    bits[rng.choice(wrong.tolist())] = 1
    sample.raw["result"]["bits"][name] = pack(bits, 1)


@mutation("result", "schema")
def an_attack_with_the_name_of_all_together(sample: Sample, rng: random.Random) -> None:
    bits = sample.raw["result"]["bits"]
    bits["union"] = bits[rng.choice([name for name in bits if name != "clean"])]


@mutation("result", "schema")
def bits_of_another_number_of_images(sample: Sample, rng: random.Random) -> None:
    name = rng.choice(list(sample.raw["result"]["bits"]))
    bits = bits_of(sample, name)
    sample.raw["result"]["bits"][name] = pack(rng.choice([bits[:-8], np.append(bits, [0] * 8), np.append(bits, 1)]), 1)


@mutation("result", "schema")
def an_attack_that_broke_what_stands(sample: Sample, rng: random.Random) -> None:
    by = unpack(sample.raw["result"]["broken_by"], sum(sample.raw["run"]["test_counts"]), 3)
    place = rng.randrange(len(by))
    by[place] = rng.choice([5, 6, 7]) if by[place] else rng.choice([1, 2, 3, 4, 7])
    sample.raw["result"]["broken_by"] = pack(by, 3)


sets("result", "nobody broke anything", "result/broken_by", None, rule="schema")
sets("status", "a reduced run that is not", "status/reduced", True, rule="schema")
sets("run", "a limit that is not owned up to", "run/limit_test", 100, 10**17, rule="schema")


@mutation("status", "schema")
def an_override_that_is_not_owned_up_to(sample: Sample, rng: random.Random) -> None:
    sample.raw["run"].setdefault("overrides", {})["lr"] = sample.raw["run"]["recipe"]["lr"] = 0.05
    sample.raw["status"]["off_recipe"] = False
