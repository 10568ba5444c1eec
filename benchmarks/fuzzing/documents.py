"""Files of text: records, statements, cards, protocols, plans."""

from __future__ import annotations

import copy
import json
import random
import shutil
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import click
import fuzz_records
from record_mutations import MUTATIONS

from fuzzing.tools import FaultError, Kind, check_message, mutate_bytes, mutate_tree, toml_file
from ltrobust_bench.cards import card_of, methods, plugins, read_card
from ltrobust_bench.protocol.load import PROTOCOL_FILES, load_protocol, read_protocol
from ltrobust_bench.records.io import read_record
from ltrobust_bench.records.retract import read_retraction
from ltrobust_bench.records.trust import judged
from ltrobust_bench.records.verify import read_verification
from ltrobust_bench.sweeps.plan import read_plan

ROOT = Path(__file__).resolve().parents[2]
SIGNER = b'a@b.org namespaces="ltrobust-bench" ssh-ed25519 AAAA\n'
BASES = 6
"""Records that are mutated; each of them has all sections."""


def some_records() -> list[Path]:
    """Files of committed digits records, one of each of some methods."""
    folders = sorted((ROOT / "results" / "records" / "digits-v0" / "digits-lt-ir20").iterdir())
    return [sorted(folder.glob("*.json"))[0] for folder in folders[:: max(1, len(folders) // BASES)]][:BASES]


class Records(Kind):
    """The classes of mutations of `benchmarks/record_mutations`, each with its verdict, and any others besides."""

    name: ClassVar[str] = "records"
    share: ClassVar[float] = 1.5

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases = [json.loads(path.read_bytes()) for path in some_records()]

    def attempt(self, rng: random.Random, place: Path) -> str | None:
        if rng.randrange(2):
            return self._known(rng, place)
        raw = copy.deepcopy(rng.choice(self.bases))
        mutate_tree(raw, rng)
        path = place / "x.json"
        path.write_bytes(_json(raw, rng))
        record = read_record(path)
        problems = fuzz_records.examine([fuzz_records.Document(path, place, record)], fuzz_records.NOW)
        for problem in problems:
            check_message(str(problem), 1)
        return "refused" if problems else None

    def _known(self, rng: random.Random, place: Path) -> str | None:
        change = rng.choice(MUTATIONS)
        try:
            sample, original = fuzz_records.mutated(change, self.bases, rng)
        except click.ClickException:  # it needs something that only older or newer records have
            return "refused"
        problems = fuzz_records.judge(sample, original, place / "records")
        for problem in problems:
            check_message(str(problem), 1)
        rules = {problem.rule for problem in problems}
        if (change.rule is None and problems) or (change.rule is not None and change.rule not in rules):
            raise FaultError(f"{change.name}: expected {change.rule or 'no problem'}, found {problems}")
        return "refused" if problems else None


class Statements(Kind):
    """Verifications, retractions and keys beside a record that they are about."""

    name: ClassVar[str] = "statements"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pairs = []
        records = {read_record(path).id: path for path in (ROOT / "results" / "records").rglob("*.json")}
        for path in sorted((ROOT / "results" / "verifications").glob("*.json"))[:40:8]:
            raw = json.loads(path.read_bytes())
            self.pairs.append((raw, records[raw["record"]]))

    def attempt(self, rng: random.Random, place: Path) -> str | None:
        raw, path = rng.choice(self.pairs)
        record = read_record(path)
        filed = place / "records" / record.run.record_path()
        filed.parent.mkdir(parents=True)
        shutil.copy(path, filed)
        is_retraction = rng.randrange(3) == 0
        if is_retraction:
            raw = {"record": raw["record"], "path": raw["path"], "reason": "wrong", "date": "2026-01-01"}
        raw = copy.deepcopy(raw)
        mutate_tree(raw, rng)
        folder = place / ("retractions" if is_retraction else "verifications")
        folder.mkdir()
        statement = folder / f"{record.id}.json"
        statement.write_bytes(_json(raw, rng))
        if rng.randrange(2):
            (place / "signers").write_bytes(mutate_bytes(SIGNER, rng))
        (known,), problems = judged([record], [place / "records"], keep_retracted=True)
        said = known.standing.said if known.standing else ()
        for text in [*problems, *(f"{one.by} {one.says} {one.why}" for one in said)]:
            check_message(text, 1)
        (read_retraction if is_retraction else read_verification)(statement)
        return None


def _json(raw: Any, rng: random.Random) -> bytes:
    data = json.dumps(raw, ensure_ascii=rng.randrange(2) == 0).encode("utf-8", errors="surrogatepass")
    return mutate_bytes(data, rng, 2) if rng.randrange(4) == 0 else data


class Cards(Kind):
    """Cards of methods, and what is read off one: options, a recipe under a protocol."""

    name: ClassVar[str] = "cards"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases = [path.read_bytes() for path in sorted((ROOT / "baselines").glob("*/card.toml"))]
        assert card_of("at") and plugins.names() and methods.names()

    def attempt(self, rng: random.Random, place: Path) -> None:
        path = place / "card.toml"
        path.write_bytes(_toml(rng.choice(self.bases), rng))
        card = read_card(path)
        for track in ("fixed", "paper"):
            card.resolve_options(track, {})
            card.resolve_recipe(load_protocol("digits-v0"), track, 0.15)


class Protocols(Kind):
    """Protocols, and what is read off one: its digest, its recipe."""

    name: ClassVar[str] = "protocols"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bases = [path.read_bytes() for path in sorted(PROTOCOL_FILES.glob("*.toml"))]

    def attempt(self, rng: random.Random, place: Path) -> None:
        path = place / "x.toml"
        path.write_bytes(_toml(rng.choice(self.bases), rng))
        protocol = read_protocol(path)
        for dataset in protocol.datasets:
            protocol.digest(dataset)
            card_of("at").resolve_recipe(protocol, "fixed", 0.1)


class Plans(Kind):
    """Plans of sweeps, and the requests in them."""

    name: ClassVar[str] = "plans"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        plans = [ROOT / "results" / "plan.toml", *sorted((ROOT / "campaigns").glob("*.toml"))]
        self.bases = [path.read_bytes() for path in plans]

    def attempt(self, rng: random.Random, place: Path) -> None:
        path = place / "plan.toml"
        path.write_bytes(_toml(rng.choice(self.bases), rng))
        plan = read_plan(path)
        plan.requests()


def _toml(base: bytes, rng: random.Random) -> bytes:
    if rng.randrange(3) == 0:
        return mutate_bytes(base, rng)
    table = tomllib.loads(base.decode())
    mutate_tree(table, rng)
    return toml_file(table)
