"""How long a leaderboard of many records takes: ``python benchmarks/leaderboard.py``.

Writes SYNTHETIC records (no model was ever trained for them) into a temporary folder: eight boards, each of several
hundred entries with three seeds, of the size of digits-lt (500 test images) and of cifar10-lt (10,000). Then times
:func:`ltrobust_bench.report.leaderboard` without figures: reading, checking, paired tests and tables, in one process;
``cold`` with an empty cache folder, ``warm`` with what the cold run left there. Processor time stands beside the wall
clock, which other programs of the machine stretch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

SEEDS, BOARDS = 3, 8
ATTACKS = {"fgsm": 1.0, "pgd-20": 0.9, "pgd-100": 0.88, "mim-20": 0.9, "cw-20": 0.86, "scaled-pgd-20": 0.85}
COUNTS = {
    "digits-lt": [124, 88, 63, 45, 32, 23, 16, 12, 8, 6],
    "cifar10-lt": [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
}
TESTS = {"digits-lt": 50, "cifar10-lt": 1000}
"""Test images per class."""
MIXTURES = {"digits-lt": 0, "half of each": BOARDS // 2, "cifar10-lt": BOARDS}
"""How many of the boards are of cifar10-lt."""
COLUMNS = ("boards", "cache", "records", "entries", "MB", "fastest s", "median s", "slowest s", "processor s")
TIMED = """
import json, sys, time
from ltrobust_bench.report import leaderboard
wall, processor = time.perf_counter(), time.process_time()
made = leaderboard([sys.argv[1]], sys.argv[2], figures=False)
wall, processor = time.perf_counter() - wall, time.process_time() - processor
entries = [entry for board in made.boards for entry in board.entries]
print(json.dumps([sum(len(entry.runs) for entry in entries), len(entries), wall, processor]))
"""


def write_board(folder: Path, dataset: str, number: int, entries: int) -> None:
    """Records of one board. How hard an image is, is common to all entries; boards differ in the network's name."""
    from ltrobust_bench.cards import methods
    from ltrobust_bench.numbers import number as parsed
    from ltrobust_bench.protocol import default_protocol, load_protocol
    from ltrobust_bench.records.io import dumps
    from ltrobust_bench.records.schema import Record

    protocol = load_protocol(default_protocol(dataset))
    epsilon = parsed(protocol.terms(dataset).epsilon)
    run: dict[str, Any] = {
        "protocol": protocol.name,
        "protocol_digest": protocol.digest(dataset),
        "track": "fixed",
        "dataset": dataset,
        "imbalance_ratio": protocol.terms(dataset).imbalance_ratio,
        "profile": "exp",
        "train_counts": COUNTS[dataset],
        "test_counts": [TESTS[dataset]] * 10,
        "train_index_sha256": "a" * 64,
        "test_index_sha256": "b" * 64,
        "plugins": [],
        "model": f"synthetic-{number}",
        "epsilon": epsilon,
        "augmentation": {"crop_padding": 4, "flip": True},
    }
    names = methods.names()
    rng = np.random.default_rng(number)
    classes = np.repeat(np.arange(10), TESTS[dataset])
    difficulty = rng.random(len(classes)) * (0.6 + 0.1 * classes)
    for entry in range(entries):
        card = methods.get(names[entry % len(names)]).card
        overrides = {"weight_decay": 1e-4 * (1 + entry // len(names))}
        run |= {
            "method": card.slug,
            "card_version": card.version,
            "options": card.resolve_options("fixed", {}),
            "recipe": card.resolve_recipe(protocol, "fixed", epsilon, overrides).model_dump(),
            "overrides": overrides,
        }
        for seed in range(SEEDS):
            felt = difficulty + rng.normal(0, 0.1, len(classes))
            record = _record(run | {"seed": seed}, felt < 0.8, felt, 0.3 + 0.3 * entry / entries)
            (folder / f"{number}-{entry}-{seed}.json").write_text(dumps(Record.model_validate(record)))


def _record(run: dict[str, Any], clean: np.ndarray, felt: np.ndarray, strength: float) -> dict[str, Any]:
    from ltrobust_bench.records.schema import Result
    from ltrobust_bench.scores.bits import pack

    bits = {"clean": clean} | {name: clean & (felt < strength * factor) for name, factor in ATTACKS.items()}
    bits["autoattack"] = bits["scaled-pgd-20"] & (felt < strength * 0.82)
    packed = {name: pack(value, 1) for name, value in bits.items()}
    broken_by = pack(clean & ~bits["autoattack"], 3)
    digest = Result.digest_of(packed, broken_by)
    work = {"forwards": 1_000_000, "backwards": 900_000, "seconds": 60.0}
    return {
        "schema_version": 1,
        "run": run,
        "result": {"bits": packed, "broken_by": broken_by, "weights_sha256": "0" * 64, "digest": digest},
        "cost": {"training": work, "evaluation": work, "optimizer_steps": 1000},
        "environment": {
            "package_version": "0.0.0",
            "git_commit": None,
            "git_dirty": None,
            "python": "3",
            "torch": "0",
            "pyautoattack": None,
            "device": "none: synthetic",
            "threads": 1,
            "precision": "fp32",
            "tf32": False,
            "created": "2026-01-01T00:00:00Z",
        },
        "status": {"reduced": False, "off_recipe": True, "trials": 0},
        "reliability": {
            "images": 500,
            "randomness": 0.0,
            "probabilities": False,
            "confidence": 0.5,
            "zero_gradients": 0.0,
            "accuracy_at_half": 0.0,
            "accuracy_by_radius": {"0": 0.8, "0.5": 0.6, "1": 0.4, "2": 0.1},
            "batch_dependence": 0.0,
            "state_changed": False,
        },
    }


def measure(folder: Path, output: Path, repeat: int) -> dict[str, list[str]]:
    """Cells of the table's lines, by what the cache held; processor time is the median."""
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    command = [sys.executable, "-c", TIMED, str(folder), str(output)]
    found: dict[str, list[list[float]]] = {"cold": [], "warm": []}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            for results in found.values():
                env = os.environ | {"LTBENCH_CACHE": cache}
                results.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=env).stdout))
    lines = {}
    for state, results in found.items():
        (records, *_), (entries, *_), wall, processor = (sorted(values) for values in zip(*results, strict=True))
        seconds = (wall[0], median(wall), wall[-1], median(processor))
        lines[state] = [f"{records}", f"{entries}", f"{megabytes:.0f}", *(f"{value:.1f}" for value in seconds)]
    return lines


@click.command()
@click.option("--records", type=click.IntRange(BOARDS * SEEDS), default=10_000, show_default=True, help="How many.")
@click.option(
    "--repeat", type=click.IntRange(1), default=1, show_default=True, help="Time so many processes of each kind."
)
@click.option("--output", type=click.Path(path_type=Path), help="CSV file to write the table to.")
def main(records: int, repeat: int, output: Path | None) -> None:
    """Time the leaderboard of synthetic records of small, mixed and large test sets."""
    from ltrobust_bench.files import write_text

    lines = [",".join(COLUMNS)]
    click.echo("  ".join(f"{column:>14}" for column in COLUMNS))
    for name, large in MIXTURES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "records"
            folder.mkdir()
            for board in range(BOARDS):
                dataset = "cifar10-lt" if board < large else "digits-lt"
                write_board(folder, dataset, board, -(-records // (BOARDS * SEEDS)))
            measured = measure(folder, Path(temporary), repeat)
        for cells in ([name, state, *numbers] for state, numbers in measured.items()):
            click.echo("  ".join(f"{cell:>14}" for cell in cells))
            lines.append(",".join(cells))
    if output is not None:
        write_text(output, "".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
