"""What the page About says that follows from the installed package: protocols, and how to cite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltrobust_bench._version import __version__
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.protocol.spec import Protocol
from ltrobust_bench.report.board import Board

STATUS = {
    "frozen": "fixed for good: a change of any number would be a new protocol with a new name",
    "candidate": "may still change until its first board is published",
    "disposable": "for trying things out, not for papers",
    "smoke": "seconds of work that test an installation; its numbers mean nothing",
}
CITATION = f"""@software{{ltrobust_bench,
  title = {{ltrobust-bench: a benchmark for adversarial robustness under long-tailed data}},
  author = {{{{The ltrobust-bench developers}}}},
  version = {{{__version__}}},
  license = {{Apache-2.0}}
}}"""


@dataclass(frozen=True)
class ProtocolView:
    """A protocol, its file, and how many boards here are under it."""

    protocol: Protocol
    text: str
    boards: int

    @property
    def status(self) -> str:
        return STATUS[self.protocol.status]


def protocol_views(boards: Sequence[Board]) -> list[ProtocolView]:
    """The installed protocols, those with boards here first, and of these the ones that hold for good."""
    under = [board.key.protocol for board in boards if board.status != "unknown"]
    found = [
        ProtocolView(load_protocol(name), protocols.get(name).read_text(encoding="utf-8"), under.count(name))
        for name in protocols.names()
    ]
    return sorted(found, key=lambda view: (not view.boards, list(STATUS).index(view.protocol.status)))
