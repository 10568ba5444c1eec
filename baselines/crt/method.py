"""RS-fine (RoBal's study; cRT of Kang et al., ICLR 2020): the head of a finished network is trained on with
class-aware draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltrobust_bench.api import Method, TrainInfo, head_only
from ltrobust_bench.longtail import ClassAware


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """Plain adversarial training of the head alone; ``classifier`` says whether it goes on or starts afresh."""
    cycles = ClassAware()
    inherits = ("backbone", "head") if options["classifier"] == "trained" else ("backbone",)
    return Method(sampler=cycles, trains=head_only, inherits=inherits, memory={"sampler": cycles})
