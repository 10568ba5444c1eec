"""What decides a comparison does not change unnoticed: protocols, known splits, and which methods are ranked.

A change that is meant changes ``tests/pinned.json`` with it (``python tests/unit/test_pinned.py`` writes it again), and
the bot names such a pull request in its first line.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.known import TABLE
from ltrobust_bench.protocol import load_protocol, protocols
from ltrobust_bench.terms import canonical_digest

PINNED = Path(__file__).parents[1] / "pinned.json"


def now():
    """The state of things, as ``tests/pinned.json`` holds it."""
    loaded = {name: load_protocol(name) for name in sorted(protocols.names())}
    known = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        "protocols": {
            name: {"status": protocol.status}
            | {dataset: protocol.digest(dataset) for dataset in sorted(protocol.datasets)}
            for name, protocol in loaded.items()
        },
        "known splits": {dataset: canonical_digest(facts) for dataset, facts in sorted(known.items())},
        "not ranked": sorted(
            name for registry in (methods, plugins) for name in registry.names() if not registry.get(name).card.ranked
        ),
    }


def test_protocols_splits_and_ranked_flags_are_those_that_are_pinned():
    pinned, found = json.loads(PINNED.read_text()), now()
    assert pinned.keys() == found.keys()
    for part in pinned:
        assert found[part] == pinned[part], f"{part} changed: if that is meant, run python tests/unit/test_pinned.py"


if __name__ == "__main__":
    PINNED.write_text(json.dumps(now(), indent=1) + "\n")
