"""The verbs as functions: run, train, tune, sweep, evaluate, load_model. ``ltbench`` is a thin shell around them."""

from __future__ import annotations

from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.protocol.spec import Search
from ltrobust_bench.verbs.adapting import thorough
from ltrobust_bench.verbs.evaluations import analyse, attack_model, curve, evaluate, suite_attacks
from ltrobust_bench.verbs.exporting import export
from ltrobust_bench.verbs.loading import LoadedModel, load_model, task_of
from ltrobust_bench.verbs.prediction import Prediction
from ltrobust_bench.verbs.runs import finish_run, run, run_plan, train
from ltrobust_bench.verbs.shipping import ship
from ltrobust_bench.verbs.sweeping import Sweep, sweep
from ltrobust_bench.verbs.trials import Trials, read_trials, tuned_plan
from ltrobust_bench.verbs.tuning import tune

__all__ = [
    "Evaluation",
    "Prediction",
    "LoadedModel",
    "Search",
    "Sweep",
    "Trials",
    "analyse",
    "attack_model",
    "curve",
    "evaluate",
    "export",
    "finish_run",
    "load_model",
    "read_trials",
    "run",
    "run_plan",
    "ship",
    "suite_attacks",
    "sweep",
    "task_of",
    "thorough",
    "train",
    "tune",
    "tuned_plan",
]
