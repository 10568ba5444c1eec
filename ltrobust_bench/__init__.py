"""Benchmark suite and leaderboard for adversarial robustness under long-tailed data.

The verbs of the command line as functions::

    import ltrobust_bench as lt

    record = lt.run("reat", "digits-lt")                 # train, attack, write the record
    result = lt.evaluate(my_module, "cifar10-lt")        # attack any torch module
    result.metrics("autoattack").tail                    # mean accuracy of the tail classes

Names are imported when first used: ``import ltrobust_bench`` itself does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ltrobust_bench._version import __version__
from ltrobust_bench.errors import LTBenchError, UsageError

if TYPE_CHECKING:
    from ltrobust_bench.data.registry import DatasetSpec, register_dataset
    from ltrobust_bench.data.sources import Source
    from ltrobust_bench.plan.request import Request
    from ltrobust_bench.protocol.spec import DatasetTerms
    from ltrobust_bench.records.schema import Record
    from ltrobust_bench.report import leaderboard
    from ltrobust_bench.verbs import (
        Evaluation,
        LoadedModel,
        Prediction,
        Trials,
        evaluate,
        export,
        load_model,
        run,
        sweep,
        train,
        tune,
    )

_WHERE = {
    "run": "ltrobust_bench.verbs",
    "train": "ltrobust_bench.verbs",
    "tune": "ltrobust_bench.verbs",
    "sweep": "ltrobust_bench.verbs",
    "evaluate": "ltrobust_bench.verbs",
    "export": "ltrobust_bench.verbs",
    "load_model": "ltrobust_bench.verbs",
    "Evaluation": "ltrobust_bench.verbs",
    "LoadedModel": "ltrobust_bench.verbs",
    "Prediction": "ltrobust_bench.verbs",
    "Trials": "ltrobust_bench.verbs",
    "leaderboard": "ltrobust_bench.report",
    "Record": "ltrobust_bench.records.schema",
    "Request": "ltrobust_bench.plan.request",
    "DatasetSpec": "ltrobust_bench.data.registry",
    "DatasetTerms": "ltrobust_bench.protocol.spec",
    "Source": "ltrobust_bench.data.sources",
    "register_dataset": "ltrobust_bench.data.registry",
}

__all__ = [
    "DatasetSpec",
    "DatasetTerms",
    "Evaluation",
    "LTBenchError",
    "LoadedModel",
    "Prediction",
    "Record",
    "Request",
    "Source",
    "Trials",
    "UsageError",
    "__version__",
    "evaluate",
    "export",
    "leaderboard",
    "load_model",
    "register_dataset",
    "run",
    "sweep",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'ltrobust_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
