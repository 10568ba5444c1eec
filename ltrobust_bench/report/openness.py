"""What of an entry is open to a reader: its weights, the authors' code, and the licence of that code."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ltrobust_bench.records.weights import folders, read_index
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.cited import cards_of

NONE_STATED = "none stated"
LICENCES = {
    "BuhuiOK/TAET-Two-Stage-Adversarial-Equalization-Training-on-Long-Tailed-Distributions": NONE_STATED,
    "GuanlinLee/REAT": "MIT",
    "NISPLab/AT-BSL": NONE_STATED,
    "QizhouWang/MAIL": NONE_STATED,
    "TrustAI/FAAL": NONE_STATED,
    "cc233/CalFAT": "Apache-2.0",
    "clovaai/CutMix-PyTorch": "MIT",
    "dvlab-research/LBGAT": "MIT",
    "facebookresearch/classifier-balancing": "BSD-3-Clause",
    "hannxu123/fair_robust": NONE_STATED,
    "imrahulr/hat": "MIT",
    "jiequancui/DKL": NONE_STATED,
    "kaidic/LDAM-DRW": "MIT",
    "naver-ai/cmo": "MIT",
    "whj363636/Self-Ensemble-Adversarial-Training": "MIT",
    "wutong16/Adversarial_Long-Tail": NONE_STATED,
    "yaodongyu/TRADES": "MIT",
    "yneversky/MCAT": NONE_STATED,
    "zhang-lilin/RobustLT": NONE_STATED,
}
"""What the repositories of official code state, as far as somebody looked; the code here is our own in any case."""


def code(board: Board, entry: Entry) -> str | None:
    """Where the authors' code is, a repository of GitHub or a link each; None: nobody published any."""
    found = [card.paper.code for card in cards_of(entry.runs[0].run) if card.paper.code]
    return " ".join(dict.fromkeys(found)) or None


def licence(board: Board, entry: Entry) -> str | None:
    """What the authors' code may be used for; None: there is none, or nobody looked."""
    found = [LICENCES[repository] for repository in (code(board, entry) or "").split() if repository in LICENCES]
    return ", ".join(dict.fromkeys(found)) or None


def weights(board: Board, entry: Entry) -> str | None:
    """Names of the entry's networks that come with the package; None: it has none of them."""
    names = _shipped(tuple(folders()))
    found = [names[r.result.weights_sha256] for r in entry.runs if r.result.weights_sha256 in names]
    return " ".join(found) or None


@cache
def _shipped(places: tuple[Path, ...]) -> dict[str, str]:
    """Names of networks by the digest of their tensors."""
    return {one.weights_sha256: name for folder in places for name, one in read_index(folder).items()}
