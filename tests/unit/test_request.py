"""A request is one value: it gives a run's key again, travels without pixels, and stands in for lists of arguments."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest

import ltrobust_bench as lt
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import FIELDS, Request
from ltrobust_bench.plan.run import CUTS, Policy
from ltrobust_bench.records.io import find_records, read_record

ROOT = Path(__file__).resolve().parents[2]


def test_every_record_gives_a_request_that_gives_its_key():
    records, problems = find_records([ROOT / "results" / "records"])
    records += [read_record(path) for path in sorted((ROOT / "tests" / "historic_records").glob("*.json"))]
    assert not problems and len(records) > 100
    for record in records:
        if datasets.get(record.run.dataset).folder:
            continue  # its images are not here; the next test has some of them
        assert Request.of(record.run).to_plan().run.key() == record.run.key(), record.run.record_path()


def test_so_does_every_record_on_cifar10(cifar10_folder):
    records, _ = find_records([ROOT / "results" / "records"])
    for run in (record.run for record in records if record.run.dataset == "cifar10-lt"):
        assert Request.of(run).to_plan(cifar10_folder).run.key() == run.key(), run.record_path()


@pytest.mark.parametrize(
    "terms",
    [
        {"holdout": "val", "limit_train": 90, "limit_test": 30, "epochs": 7},
        {"method": "crt", "plugins": ["awp"], "settings": {"awp.gamma": "0.02", "lr": 0.01}, "holdout": "val"},
        {"method": "selfdistill", "track": "paper", "imbalance_ratio": 7, "profile": "step"},
        {"precision": "bf16", "policy": Policy(crafting="folded", memory_format="channels_last"), "profile": "own"},
        {"method": "ldam", "settings": {"bn_forwards": "official", "batch_size": "32"}, "model": "resnet18", "seed": 4},
    ],
)
def test_so_does_every_kind_of_run(terms):
    request = Request(**{"method": "reat", "dataset": "digits-lt", **terms})
    run = request.to_plan().run
    assert Request.of(run).to_plan().run.key() == run.key()


def test_it_is_a_value():
    one = Request("at", "digits-lt", settings={"lr": 0.1, "attack.steps": 3}, plugins=["awp"])
    other = Request("at", "digits-lt", settings={"attack.steps": 3, "lr": 0.1}, plugins=("awp",))
    assert one == other and len({one, other, one.replace(seed=1)}) == 2
    stored = pickle.dumps(one)
    assert pickle.loads(stored) == one and len(stored) < 2000


def test_what_a_run_was_cut_by_is_asked_for_by_the_same_name():
    assert set(CUTS) <= set(FIELDS)


def test_verbs_show_all_that_can_be_asked_for():
    for verb in (lt.run, lt.train, lt.tune, make_plan):
        shown = inspect.signature(verb).parameters
        assert list(shown)[: len(FIELDS)] == list(FIELDS) and "data_dir" in shown
        assert shown["seed"].default == 0 and shown["seed"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: lt.run("at", "digits-lt", limit_trian=9),
            "unknown argument of run 'limit_trian': did you mean 'limit_tra",
        ),
        (lambda: lt.train("at", "digits-lt", run_dir="x"), "did you mean 'runs_dir'"),
        (lambda: make_plan("at", "digits-lt", plugin_names=["awp"]), "did you mean 'plugins'"),
        (lambda: Request("at", "digits-lt").replace(sede=1), "did you mean 'seed'"),
    ],
)
def test_a_typo_gets_the_nearest_name(call, says):
    with pytest.raises(UnknownNameError, match=says):
        call()


def test_a_verb_takes_a_request_or_its_fields():
    request = Request("at", "digits-lt", seed=3)
    keys = {plan.run.key() for plan in (make_plan(request), make_plan("at", "digits-lt", seed=3), request.to_plan())}
    assert len(keys) == 1 and make_plan(request, seed=4).run.seed == 4
    with pytest.raises(UsageError, match="needs a data set"):
        make_plan("at")


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**31}, "seed must be"),
        ({"epochs": 0}, "1 or more"),
        ({"track": "papier"}, "did you mean 'paper'"),
        ({"holdout": "test"}, "unknown holdout"),
        ({"precision": "bf16", "policy": Policy(crafting="winograd")}, "computes in float32"),
    ],
)
def test_what_needs_no_looking_up_is_refused_at_once(terms, says):
    with pytest.raises(UsageError, match=says):
        Request("no-such-method", "no-such-data", **terms)
