"""A real small race: one run is given up by its bound, one is attacked in full."""

from __future__ import annotations

import pytest

from ltrobust_bench import verbs
from ltrobust_bench.plan.request import Request
from ltrobust_bench.records.io import write_record
from ltrobust_bench.sweeps.bounds import network_sha256, read_bound
from ltrobust_bench.verbs.sweeping import Sweep, place_of

pytestmark = pytest.mark.slow

TERMS = {"protocol": "smoke", "imbalance_ratio": 1, "limit_train": 600, "limit_test": 100, "epochs": 12}


def test_a_run_below_the_cut_is_skipped_and_one_near_it_is_kept(tmp_path):
    """The board has one entry, adversarially trained. An undefended network is far below it; with equal classes
    balanced softmax is the same training as the entry's, so that it cannot be below by more than its interval."""
    runs, results = tmp_path / "runs", tmp_path / "results"
    entry = verbs.run("at", "digits-lt", runs_dir=tmp_path / "before", results_dir=None, device="cpu", **TERMS)
    write_record(entry, results / "records" / entry.run.record_path())
    requests = [Request(method, "digits-lt", **TERMS) for method in ("erm", "at-bsl")]
    given = {"runs_dir": runs, "results_dir": results, "device": "cpu"}
    report = verbs.sweep(requests, race=1, workers=1, threads_per_worker=1, **given)
    assert not report.failed and not report.left and len(report.done) == 4
    skipped, kept = (next(runs.glob(f"{method}-digits-lt-*")) for method in ("erm", "at-bsl"))
    bound = read_bound(skipped)
    assert not (skipped / "record.json").exists() and bound.weights_sha256 == network_sha256(skipped)
    assert bound.accuracy <= bound.high < bound.cut == pytest.approx(float(entry.metrics("union").balanced))
    assert (kept / "record.json").exists() and read_bound(kept) is None

    def left(race):
        place = place_of(verbs.sweeping.executor_with("local", {})[1], runs, results, None, "cpu", race)
        return [name.partition("-")[0] + "." + name.rpartition(".")[2] for name in Sweep.of(requests, place).left]

    assert left(1) == [] and left(None) == ["erm.evaluate"] == left(2)
