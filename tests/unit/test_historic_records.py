"""The museum: a real record of every schema version, and of every stage of a version. All of them stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltrobust_bench.records.io import read_record
from ltrobust_bench.records.schema import SCHEMA_VERSION, json_schema
from ltrobust_bench.records.validate import validate

ROOT = Path(__file__).resolve().parents[2]
MUSEUM = sorted((ROOT / "tests" / "historic_records").glob("*.json"))
SCHEMA = ROOT / "docs" / "record.schema.json"


def test_every_schema_version_is_in_the_museum():
    shown = {int(path.name.partition("-")[0].removeprefix("v")) for path in MUSEUM}
    assert shown == set(range(1, SCHEMA_VERSION + 1))
    first = [json.loads(path.read_text()) for path in MUSEUM if path.name.startswith("v1-")]
    assert {"reliability" in raw for raw in first} == {True, False}, "before and after it was measured"
    assert {"code" in raw["environment"] for raw in first} == {True, False}, "before and after it was recorded"


@pytest.mark.parametrize("path", MUSEUM, ids=lambda p: p.stem)
def test_it_reads_and_has_the_run_key_of_its_day(path):
    record = read_record(path)
    assert path.name.startswith(f"v{record.schema_version}-")
    assert path.stem.endswith(record.run.key()[:8]), "a change of the schema changed the keys of old runs"
    assert validate([path]).problems == []


def test_its_numbers_are_those_of_its_day():
    record = read_record(next(p for p in MUSEUM if p.name.startswith("v1-first-")))
    found = [record.metrics(name).balanced for name in ("clean", "pgd-20", "autoattack", "union")]
    assert found == pytest.approx([0.952, 0.59, 0.536, 0.536])
    assert record.id == "f201bce19e7e"


def test_the_published_schema_is_current():
    command = f"ltbench record schema > {SCHEMA.relative_to(ROOT)}"
    assert json.loads(SCHEMA.read_text()) == json.loads(json_schema()), f"write it again: {command}"


@pytest.mark.parametrize("path", MUSEUM, ids=lambda p: p.stem)
def test_the_published_schema_describes_every_field(path):
    schema = json.loads(SCHEMA.read_text())

    def described(value, by):
        if "discriminator" in by:
            by = {"$ref": by["discriminator"]["mapping"][value["kind"]]}
        by = schema["$defs"][by["$ref"].rpartition("/")[2]] if "$ref" in by else by
        if isinstance(value, dict) and "properties" in by:
            assert set(by.get("required", [])) <= value.keys() <= by["properties"].keys()
            for name, inner in value.items():
                described(inner, by["properties"][name])

    described(json.loads(path.read_text()), schema)
