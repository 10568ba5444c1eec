"""The defenses, one folder each: ``card.toml`` (what it is) and ``method.py`` (its parts).

In a checkout the folders live in the top-level ``baselines/``; in an installed wheel they lie beside
this file. Both are searched, so ``ltrobust_bench.baselines.at`` means the same everywhere.
"""

from __future__ import annotations

from pathlib import Path

_checkout = Path(__file__).resolve().parents[2] / "baselines"
if (_checkout / "at" / "card.toml").is_file():
    __path__.append(str(_checkout))
