"""Mutated records against `ltbench record validate`: every class of mutation has a known verdict.

    python benchmarks/fuzz_records.py --count 10000 --seed 0

After a mutation the record is sealed again (its digest, and the place that its run key gives it), so that nothing is
caught by the seal alone. Harmless mutations must be accepted; the others must be refused by the rule that is meant to.
Prints how many of each class were accepted and refused; leaves with code 1 after a wrong verdict or an exception.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import click
from pydantic import ValidationError
from record_mutations import MUTATIONS, Json, Mutation, NotApplicableError, Sample

from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records.schema import Record, Result
from ltrobust_bench.records.validate import Document, Problem, examine, load

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime.now(UTC)


def seal(raw: Json) -> None:
    """Make the digest fit the bits again, where there are any."""
    result = raw.get("result")
    if isinstance(result, dict) and isinstance(result.get("bits"), dict) and "digest" in result:
        try:
            result["digest"] = Result.digest_of(result["bits"], result.get("broken_by"))
        except (TypeError, ValueError):
            return


def place_of(raw: Json, otherwise: str) -> str:
    """Where the record's run says that it lies; ``otherwise`` if it does not say."""
    try:
        place = RunSection.model_validate(raw["run"]).record_path()
    except (KeyError, TypeError, ValidationError):
        return otherwise
    return place if len(place) < 250 else otherwise


def judge(sample: Sample, original: str, board: Path) -> list[Problem]:
    """Write the sample, read it back as the command does, and apply every rule."""
    documents: list[Document] = []
    for raw in sample.beside:
        other = Record.model_validate(raw)
        documents.append(Document(board / other.run.record_path(), board, other))
    if sample.sealed:
        seal(sample.raw)
    path = board / (sample.place or place_of(sample.raw, original))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(sample.raw).encode() if sample.data is None else sample.data)
    try:
        found, problems = load([path])
    finally:
        path.unlink()
    return problems + examine([*documents, *found], NOW)


def mutated(change: Mutation, bases: list[Json], rng: random.Random) -> tuple[Sample, str]:
    """A mutated record, and where it lay before."""
    for raw in rng.sample(bases, len(bases)):
        sample = Sample(copy.deepcopy(raw))
        try:
            change.apply(sample, rng)
        except NotApplicableError:
            continue
        return sample, place_of(raw, "x.json")
    raise click.ClickException(f"no record can be mutated by {change.name!r}")


@click.command()
@click.option("--count", type=click.IntRange(1), default=10_000, show_default=True, help="How many mutated records.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--records",
    "folders",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    default=[ROOT / "results" / "records", ROOT / "tests" / "historic_records"],
    help="What to mutate: folders of sound records; repeatable.",
)
def main(count: int, seed: int, folders: tuple[Path, ...]) -> None:
    """Fuzz `ltbench record validate` with mutated, re-sealed records."""
    rng = random.Random(seed)
    files = sorted(path for folder in folders for path in folder.rglob("*.json"))
    bases = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    accepted: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    wrong: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        click.progressbar(range(count), label=f"{len(MUTATIONS)} classes", file=sys.stderr) as numbers,
    ):
        board = Path(folder).resolve() / "records"
        for number in numbers:
            change = MUTATIONS[number % len(MUTATIONS)]
            sample, original = mutated(change, bases, rng)
            try:
                problems = judge(sample, original, board)
            except Exception:  # noqa: BLE001 - whatever it is, it is what this program looks for
                wrong.append(f"{change.name}: {traceback.format_exc()}")
                continue
            (refused if problems else accepted)[change.name] += 1
            rules = {problem.rule for problem in problems}
            if (change.rule is None and problems) or (change.rule is not None and change.rule not in rules):
                found = "; ".join(map(str, problems)) or "nothing"
                wrong.append(f"{change.name}: expected {change.rule or 'no problem'}, found {found}")
    click.echo(f"{'section':<12} {'mutation':<42} {'must be refused by':<22} {'accepted':>8} {'refused':>8}")
    for each in sorted(MUTATIONS, key=lambda m: m.rule or ""):
        numbers_of = f"{accepted[each.name]:>8} {refused[each.name]:>8}"
        click.echo(f"{each.section:<12} {each.name:<42} {each.rule or '- (harmless)':<22} {numbers_of}")
    click.echo(
        f"{count} records in {len(MUTATIONS)} classes: {accepted.total()} accepted, {refused.total()} refused, "
        f"{len(wrong)} wrong verdicts or exceptions"
    )
    for line in wrong[:20]:
        click.echo(f"WRONG {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
