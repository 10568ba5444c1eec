"""The defenses, one folder each: ``card.toml`` (what it is) and ``method.py`` (its parts).

In a checkout the folders live in the top-level ``baselines/``; in an installed wheel they lie beside
this file. Both are searched, so ``ltrobust_bench.baselines.at`` means the same everywhere.
"""

from __future__ import annotations

from pathlib import Path

_folder = Path(__file__).resolve().parents[2] / "baselines"
CHECKOUT: Path | None = _folder if (_folder / "at" / "card.toml").is_file() else None
"""The checkout's folder; None in an installed wheel."""
if CHECKOUT is not None:
    __path__.append(str(CHECKOUT))
