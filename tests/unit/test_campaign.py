"""The campaign's page: what of a plan is done, from records alone."""

from __future__ import annotations

import pytest
from record_factory import synthetic_record

from ltrobust_bench.cards import methods
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.plan.make import settings_of
from ltrobust_bench.plan.request import Request
from ltrobust_bench.records.io import find_records
from ltrobust_bench.records.schema import Work
from ltrobust_bench.report.aggregate import method_label, request_label, usual_policy
from ltrobust_bench.report.campaign import campaign_page, planned_runs
from ltrobust_bench.sweeps.plan import read_plan


def done(method="at", seed=0, training=600.0, base=None, **run):
    record = synthetic_record(method=method, seed=seed, seconds=training, **run)
    if base is None:
        return record
    cost = record.cost.model_copy(update={"base": Work(forwards=1, backwards=1, seconds=base)})
    return record.model_copy(update={"cost": cost})


ASKED = [Request(method, "digits-lt", seed=seed) for seed in (0, 1) for method in ("at", "crt")]


def test_a_request_is_called_what_its_run_is_called():
    asked = Request("at-bsl", "digits-lt", plugins=("robustlt",), settings={"tau": "2", "attack.steps": 5})
    run = asked.to_plan().run
    assert request_label(asked) == method_label(run) == "at-bsl+robustlt (tau=2.0, attack.steps=5)"


def test_a_run_that_builds_on_another_is_told_without_it():
    runs = planned_runs(ASKED, [done(), done("crt", training=660.0, base=600.0)])
    assert [run.training for run in runs] == [10, 1, 0, 0]
    page = campaign_page("a.toml", runs)
    assert "2 of 4 runs are done, in 0.2 hours" in page and "| crt | digits-lt | 0 | 1.0 | 0.0 | cpu |" in page
    assert "| at | digits-lt | 1 |\n| crt | digits-lt | 1 |\n" in page


@pytest.mark.parametrize(
    "other",
    [{"seed": 5}, {"profile": "balanced"}, {"imbalance_ratio": 10.0}, {"limit_test": 100}, {"options": {"x": 1}},
     {"protocol_digest": "d" * 64}, {"model": "resnet18"}, {"card_version": 99}],
)  # fmt: skip
def test_other_runs_are_not_taken_for_it(other):
    assert all(run.record is None for run in planned_runs(ASKED, [done(**other)]))


@pytest.mark.parametrize(
    ("method", "dataset", "track", "asked", "model"),
    [
        ("robal", "digits-lt", "fixed", None, "small"),
        ("robal", "digits-lt", "fixed", "resnet8", "resnet8"),
        ("robal", "digits-lt", "paper", None, "small"),  # 8x8 pixels keep the protocol's network
        ("robal", "cifar10-lt", "fixed", None, "resnet18"),
        ("robal", "cifar10-lt", "paper", None, "wrn-34-10"),
        ("crt", "cifar10-lt", "paper", None, "wrn-34-10"),
    ],
)
def test_a_record_of_another_network_is_another_run(method, dataset, track, asked, model):
    request = Request(method, dataset, track=track, model=asked)
    protocol = protocol_for(dataset)
    terms, options = protocol.terms(dataset), settings_of(request)[0]
    same = {
        "method": method, "dataset": dataset, "track": track, "options": options, "protocol": protocol.name,
        "protocol_digest": protocol.digest(dataset), "imbalance_ratio": terms.imbalance_ratio,
        "profile": terms.profile, "card_version": methods.get(method).card.version,
        "policy": usual_policy(protocol.name),
    }  # fmt: skip
    (found,) = planned_runs([request], [synthetic_record(**same, model=name) for name in ("other", model)])
    assert found.record is not None and found.record.run.model == model


def test_of_a_run_that_was_done_twice_the_earliest_counts():
    first, again = (done(created=f"2026-01-0{day}T00:00:00Z", training=60.0 * day) for day in (1, 2))
    for records in ([first, again], [again, first]):
        assert planned_runs(ASKED, records)[0].record is first


def test_what_the_rest_takes_is_told_by_what_is_done():
    requests = [*ASKED, Request("at", "digits-lt", profile="balanced")]
    page = campaign_page("a.toml", planned_runs(requests, [done(training=2 * 3600.0)]))
    assert "By their mean the rest takes about 6 hours; 1 runs are on boards that have none done." in page
    assert "Nothing remains." in campaign_page("a.toml", planned_runs(ASKED[:1], [done()]))
    assert "is not known, 4 runs are on boards" in campaign_page("a.toml", planned_runs(ASKED, []))


@pytest.mark.board
def test_the_boards_plan_is_done_and_the_committed_page_is_what_the_records_say(root):
    records, _ = find_records([root / "results/records"])
    assert all(run.record for run in planned_runs(read_plan(root / "results/plan.toml").requests(), records))
    name = "campaigns/cifar10-lite.toml"
    page = campaign_page(name, planned_runs(read_plan(root / name).requests(), records))
    assert (root / "results/CAMPAIGN.md").read_text(encoding="utf-8") == page
