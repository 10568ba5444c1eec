"""From records to the page of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import UsageError
from ltrobust_bench.records.io import find_records
from ltrobust_bench.report.aggregate import beyond_doubt, boards
from ltrobust_bench.report.board import Board
from ltrobust_bench.report.claims.measure import Finding, finding_of
from ltrobust_bench.report.claims.page import page, unmeasured
from ltrobust_bench.report.claims.size import size_effects
from ltrobust_bench.report.claims.stated import stated_claims
from ltrobust_bench.scores.groups import rank_groups

ALWAYS = ("clean", "union")
"""Rows of numbers that every board has."""


@dataclass(frozen=True)
class ClaimsResult:
    """What became of the papers' claims.

    Attributes:
        findings: in the order in which they are stated.
        text: Markdown.
        waiting: entries that claims still wait for, by claim.
        problems: a message for each file that is no record.
    """

    findings: tuple[Finding, ...]
    text: str
    waiting: Mapping[str, list[str]]
    problems: list[str]


def claims(records_dirs: Sequence[Path | str], protocol: str | None = None, dataset: str | None = None) -> ClaimsResult:
    """Test what the papers claim on a board, however full it is.

    Args:
        records_dirs: folders or files to read records from.
        protocol, dataset: of the board; default: what the claims are stated for.

    Raises:
        UnknownNameError: for a protocol or data set that there is none of.
        UsageError: for a data set that the protocol says nothing about, or whose classes have no thirds.
    """
    stated = stated_claims()
    protocol, dataset = protocol or stated.protocol, dataset or stated.dataset
    protocol_for(dataset, protocol).terms(dataset)
    records, problems = find_records([Path(folder) for folder in records_dirs])
    under = {name for claim in stated.claims for _, name, _ in claim.summed}
    there = [
        one
        for one in boards(records)
        if one.key.protocol == protocol and one.usual and not one.key.reduced and under <= {*ALWAYS, *one.key.suite}
    ]
    board = _of(there, dataset)
    if board is not None and not rank_groups(board.key.train_counts):
        raise UsageError(f"{dataset} has {len(board.key.train_counts)} classes; claims are about thirds of at least 3.")
    permuted = _of(there, stated.permuted) if dataset == stated.dataset else None
    findings = tuple(finding_of(claim, board) for claim in stated.claims)
    sizes = size_effects(board, permuted) if board and permuted else []
    return ClaimsResult(findings, page(findings, board, sizes, permuted), unmeasured(findings), problems)


def _of(there: Sequence[Board], dataset: str) -> Board | None:
    """The board of a data set in track fixed, under the protocol as it is installed, with what is beyond doubt there:
    whoever adds a run that nobody verified changes no verdict."""
    board = next((one for one in there if (one.key.dataset, one.key.track) == (dataset, "fixed")), None)
    if board is None:
        return None
    return replace(board, entries=[entry for entry in board.entries if beyond_doubt(entry)])
