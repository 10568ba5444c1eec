"""No honest record is refused: a short run of every method in both tracks passes the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltrobust_bench import verbs
from ltrobust_bench.cards import methods
from ltrobust_bench.records.validate import validate

pytestmark = pytest.mark.slow
SHORT = {"protocol": "smoke", "limit_train": 60, "limit_test": 20, "epochs": 1}
STATED = {"attack.steps": 3, "lr": 0.05, "bn_forwards": "official", "lr_schedule": "robal_compound", "tail": "off"}
OTHERS = [
    ("at", {"profile": "balanced"}),
    ("at", {"profile": "own"}),
    ("selfdistill", {"profile": "step", "imbalance_ratio": 10}),
    ("crt", {"plugins": ["awp", "robustlt"]}),
    ("reat", {"settings": STATED}),
]
RUNS = [(m, SHORT | {"track": track}) for m in methods.names() for track in ("fixed", "paper")]
RUNS += [(m, {"protocol": "smoke", "limit_test": 20, **terms}) for m, terms in OTHERS]


@pytest.mark.parametrize(("method", "terms"), RUNS, ids=str)
def test_an_honest_record_is_sound(method, terms, tmp_path):
    verbs.run(method, "digits-lt", runs_dir=tmp_path, results_dir=None, device="cpu", **terms)
    assert validate([Path(tmp_path)]).problems == []
