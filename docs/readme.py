"""Writes the part of README.md that shows the lite board, from the committed records: `make board`, or this program.

A test compares it with what the records say, so it is right however full the board is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ltrobust_bench.files import write_text
from ltrobust_bench.records.io import find_records
from ltrobust_bench.report.aggregate import beyond_doubt, boards, on_terms
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.campaign import planned_runs
from ltrobust_bench.report.paper import markdown, paper_table
from ltrobust_bench.sweeps.plan import read_plan

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL, DATASET, PLAN = "ltr-linf-lite-v1", "cifar10-lt", "campaigns/cifar10-lite.toml"
START, END = "<!-- lite -->\n", "<!-- end of lite -->\n"
MOST = 20
"""Entries shown; the whole board is in results/leaderboard.md."""
ALWAYS = ("at", "erm")
SEEDS = 3


def lite_block(results: Path = ROOT / "results") -> str:
    """What README.md says of the lite board."""
    records, _ = find_records([results / "records"])
    runs = planned_runs(read_plan(ROOT / PLAN).requests(), records)
    done = sum(run.record is not None for run in runs)
    told = f"{done} of the {len(runs)} runs of [its campaign](results/CAMPAIGN.md) are done"
    found = [one for one in boards(records) if one.key.protocol == PROTOCOL and one.key.dataset == DATASET]
    board = next((one for one in found if one.usual and one.key.track == "fixed" and not one.key.reduced), None)
    if board is None:
        return f"No run on real images is finished yet: {told}.\n"
    whole = sum(len(entry.runs) >= SEEDS for entry in board.entries)
    entries = _count(len(board.entries), "entry", "entries")
    parts = [
        markdown(paper_table(board, _shown(board), ["union", "autoattack", "clean"], ["all", "tail"])),
        f"{told}; {entries} on this board, {whole} with three seeds or more. {lesson(board)}"
        "What the papers claimed, and what of it shows here: [claims](results/claims.md).\n",
    ]
    figure = results / "figures" / board.slug / "per_class.png"
    if figure.exists():
        place = figure.relative_to(results.parent).as_posix()
        parts.append(f"![Clean and robust accuracy of each class, real images]({place})\n")
    return "\n".join(parts)


def _shown(board: Board) -> list[str]:
    """Entries in the board's order: all, or the best on the board's own terms, and the references."""
    labels = [entry.label for entry in board.entries]
    if len(labels) <= MOST:
        return labels
    best = [entry.label for entry in board.entries if on_terms(entry) and entry.label not in ALWAYS]
    kept = {*best[: MOST - len(ALWAYS)], *ALWAYS}
    return [label for label in labels if label in kept]


def lesson(board: Board) -> str:
    """What can be learnt from the board, in a sentence or two; empty without plain adversarial training."""
    plain = next((entry for entry in board.entries if entry.label == "at"), None)
    if plain is None:
        return ""
    head, tail = (float(plain.percent("union", group)) for group in ("head", "tail"))
    text = (
        f"Plain adversarial training withstands every attack on {head:.1f} % of the head's images and on {tail:.1f} % "
    )
    text += "of the tail's"
    best = _best([entry for entry in board.entries if entry is plain or (beyond_doubt(entry) and on_terms(entry))])
    if best is not plain:
        text += f"; the best on the tail, {best.label}, on {float(best.percent('union', 'tail')):.1f} % of them"
    if board.reference is not None:
        ceiling = board.reference.percent("union", "per_class")
        text += f", and on as many images in equal classes it would be {ceiling[board.classes[-3:]].mean():.1f} %"
    first = sum(entry.rank == 1 for entry in board.entries)
    shared = f" {first} entries share the first rank: the data do not tell them apart." if first > 1 else ""
    return f"{text}.{shared} "


def _best(entries: Sequence[Entry]) -> Entry:
    return max(entries, key=lambda entry: float(entry.percent("union", "tail")))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def with_block(text: str, block: str) -> str:
    """README.md with its part about the lite board replaced."""
    pattern = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md has no part between {START.strip()} and {END.strip()}")
    return pattern.sub(lambda _: f"{START}{block}{END}", text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    write_text(readme, with_block(readme.read_text(encoding="utf-8"), lite_block()))
