"""``ltbench tune`` and ``run --tuned``: settings are tried on held-out training images, and never on the test set."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import FAST, call, refused

from ltrobust_bench.cards import methods
from ltrobust_bench.data.sources import load_source
from ltrobust_bench.errors import UsageError
from ltrobust_bench.executors.base import Job, Outcome
from ltrobust_bench.plan.code import code_now
from ltrobust_bench.plan.request import Request
from ltrobust_bench.records.io import read_record
from ltrobust_bench.sweeps.scheduler import Report
from ltrobust_bench.terms import canonical_digest
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import evaluate, load_model, read_trials, tuning
from ltrobust_bench.verbs import trials as trials_file

TUNE = ["tune", "--method", "at-bsl", "--dataset", "digits-lt", *FAST, "--metric", "pgd-5:tail", "--epochs", 1]
RUN = ["run", "--method", "at-bsl", "--dataset", "digits-lt", *FAST, "--epochs", 1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tuned(here, capsys):
    code, out, _ = call(capsys, *TUNE, "--grid", "tau=0.5,2", "--set", "attack.steps=1")
    assert code == 0 and "pgd-5:tail" in out
    (line,) = [line for line in out.splitlines() if line.startswith("next: ltbench run ")]
    (here / "next.txt").write_text(line)
    return here / "trials.json"


def test_trials_are_run_once_kept_and_counted(tuned, capsys):
    first = read_trials(tuned)
    assert [trial.settings for trial in first.trials] == [{"attack.steps": 1, "tau": tau} for tau in (0.5, 2.0)]
    assert first.images == 3.0 and first.count == 2  # one held-out image of each class of the tail
    best = max(first.trials, key=lambda trial: trial.value)
    assert first.chosen == best.settings
    for trial in first.trials:
        assert list(tuned.parent.glob(f"runs/*-{trial.key[:8]}/model.safetensors"))
    code, out, _ = call(capsys, *TUNE, "--grid", "tau=1,2", "--set", "attack.steps=1", "--seed", 0, "--seed", 1)
    assert code == 0 and out.count("tried already") == 1
    second = read_trials(tuned)
    assert second.count == 3 and len(second.trials) == 5 and second.trials[:2] == first.trials
    assert not list(tuned.parent.glob("results/**/*.json"))


def test_the_command_that_is_printed_is_the_tuned_run_under_the_same_terms(tuned, capsys):
    typed = shlex.split((tuned.parent / "next.txt").read_text().removeprefix("next: ltbench "))
    code, out, _ = call(capsys, *typed, "--dry-run")
    (trial, *_) = read_trials(tuned).trials
    (tried,) = (load_model(path).run for path in tuned.parent.glob(f"runs/*-{trial.key[:8]}"))
    assert code == 0 and f"protocol {tried.protocol}, track {tried.track}" in out
    assert {("--protocol", tried.protocol), ("--epochs", str(tried.epochs))} <= set(pairwise(typed))


def test_a_run_takes_the_chosen_settings_and_says_how_many_were_tried(tuned, capsys):
    trials = read_trials(tuned)
    small = [*RUN, "--limit-test", 20]
    by_hand = [word for name, value in trials.chosen.items() for word in ("--set", f"{name}={value}")]
    assert call(capsys, *small, *by_hand)[0] == 0
    (path,) = tuned.parent.glob("runs/*/record.json")
    assert read_record(path).status.trials == 0
    assert call(capsys, *small, "--tuned", tuned)[0] == 0  # the same run, which now is known to be tuned
    (path,) = tuned.parent.glob("runs/*/record.json")
    run = read_record(path).run
    assert read_record(path).status.trials == 2
    assert run.options["tau"] == trials.chosen["tau"] and run.overrides == {"attack.steps": 1}


def test_a_record_counts_the_trials_behind_a_cards_defaults(here, capsys):
    """Our own defense's."""
    typed = ["run", "--method", "tailguard", "--dataset", "digits-lt", *FAST, "--epochs", 1, "--limit-test", 20]
    assert call(capsys, *typed)[0] == 0
    (path,) = here.glob("runs/*/record.json")
    assert read_record(path).status.trials == methods.get("tailguard").card.trials == 8


def test_trials_of_something_else_are_refused(tuned, capsys):
    with_file = ["--tuned", tuned]
    assert "another method: at-bsl, this run has reat" in refused(capsys, *RUN[:2], "reat", *RUN[3:], *with_file)
    other = ["run", "--method", "at-bsl", "--dataset", "digits-lt", "--epochs", 1, "--dry-run", *with_file]
    assert "another protocol" in refused(capsys, *other)
    assert "leave tau out" in refused(capsys, *RUN, "--set", "tau=1", *with_file)
    assert "another plugins" in refused(capsys, *RUN, "--plugin", "awp", *with_file)
    assert "another metric" in refused(capsys, *TUNE[:-4], "--epochs", 1, "--metric", "clean", "--grid", "tau=1")
    assert "another epochs" in refused(capsys, *TUNE[:-1], 2, "--grid", "tau=1")
    for name, value in (("card_version", 9), ("dataset", "cifar10-lt")):
        terms = {n: getattr(read_trials(tuned), n) for n in trials_file.OF_TRIALS} | {name: value}
        rest = {n: getattr(read_trials(tuned), n) for n in ("metric", "images", "trials", "chosen")}
        plain = trials_file.Trials.model_construct(**terms, **rest, digest="").model_dump(mode="json")
        (tuned.parent / "other.json").write_text(json.dumps(plain | {"digest": trials_file.digest_of(plain)}))
        said = refused(capsys, *RUN, "--tuned", tuned.parent / "other.json")
        assert f"another {name.replace('_', ' ')}: {value}" in said


def test_trials_by_other_code_are_made_again_or_refused(tuned, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "_code", lambda run: "e" * 64)
    again = [*TUNE, "--set", "attack.steps=1", "--fresh", "--grid"]
    assert "by other code than this" in refused(capsys, *again[:-2], "--grid", "tau=0.5,2")
    assert "by other code than this" in refused(capsys, *again, "tau=2")  # the other trial would stay
    code, out, _ = call(capsys, *again, "tau=0.5,2")
    trials = read_trials(tuned)
    assert code == 0 and "tried already" not in out
    assert trials.count == 2 and {trial.code for trial in trials.trials} == {"e" * 64}


def test_the_code_of_what_a_trial_builds_on_counts(monkeypatch):
    plans = [Request(method, "digits-lt").to_plan() for method in ("at-bsl", "crt")]
    before = [tuning._code(plan) for plan in plans]

    def edited(plan):
        return {
            work: code.model_copy(update={"method_sha256": "e" * 64}) if work == "base" else code
            for work, code in code_now(plan).items()
        }

    monkeypatch.setattr(tuning, "code_now", edited)
    assert [tuning._code(plan) == was for plan, was in zip(plans, before, strict=True)] == [True, False]


def test_an_edited_file_of_trials_is_refused(tuned, capsys):
    raw = json.loads(tuned.read_text())
    raw["trials"] = raw["trials"][:1]
    raw["chosen"] = raw["trials"][0]["settings"]
    tuned.write_text(json.dumps(raw))
    assert "was the file edited" in refused(capsys, *RUN, "--tuned", tuned)
    tuned.write_text("{")
    assert "holds no trials" in refused(capsys, *RUN, "--tuned", tuned)
    assert "`ltbench tune` writes them" in refused(capsys, *RUN, "--tuned", "nowhere.json")


def test_no_more_settings_are_tried_than_the_file_allows(tuned, capsys):
    """What it holds counts, and tried again it counts once."""
    before = tuned.read_bytes()
    assert read_trials(tuned).at_most == 8
    grid = [*TUNE, "--set", "attack.steps=1", "--grid"]
    said = refused(capsys, *grid, "tau=0.5,2,3", "--at-most", 2)
    assert "3 settings would be tried" in said and "--at-most 3, which the file keeps" in said
    assert "9 settings would be tried" in refused(capsys, *grid, "tau=0.1,0.2,0.3,0.4,0.6,0.7,0.8")
    assert tuned.read_bytes() == before
    assert call(capsys, *grid, "tau=3", "--at-most", 9)[0] == 0
    assert (read_trials(tuned).at_most, read_trials(tuned).count) == (9, 3)


def test_a_file_of_before_there_was_a_limit_is_read(tuned):
    plain = json.loads(tuned.read_text())
    old = {name: value for name, value in plain.items() if name not in ("at_most", "extra", "pretrained", "digest")}
    old["digest"] = canonical_digest(old)
    tuned.write_text(json.dumps(old))
    assert read_trials(tuned).at_most is None and read_trials(tuned).count == 2
    tuned.write_text(json.dumps(plain | {"at_most": 99}))
    with pytest.raises(UsageError, match="was the file edited"):
        read_trials(tuned)


@pytest.mark.slow
def test_trials_by_several_workers_are_those_of_one_process(tuned, capsys):
    alone = read_trials(tuned)
    side = [*TUNE, "--set", "attack.steps=1", "--grid", "tau=0.5,2", "--runs-dir", "others", "--output", "others.json"]
    code, out, error = call(capsys, *side, "--workers", 2, "--threads-per-worker", 1)
    assert code == 0, out + error
    assert read_trials("others.json").trials == alone.trials
    assert sorted(p.name for p in tuned.parent.glob("others/*")) == sorted(p.name for p in tuned.parent.glob("runs/*"))
    assert not list(tuned.parent.glob("others/*/record.json")), "trained by the workers, and not attacked as runs are"
    before = {path: path.stat().st_mtime_ns for path in tuned.parent.glob("others/*/model.safetensors")}
    assert call(capsys, *side, "--workers", 2)[0] == 0, "tried already"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert call(capsys, *side, "--workers", 2, "--fresh")[0] == 0
    assert all(path.stat().st_mtime_ns != when for path, when in before.items())
    assert read_trials("others.json").trials == alone.trials


def test_a_trial_that_fails_elsewhere_is_one_line_and_the_others_are_kept(here, capsys, monkeypatch):
    """The trainings are pretended: what the parent does with their outcomes is not."""

    def done_by(requests, place, evaluated):
        assert not evaluated and len(requests) == 2
        train_plan(requests[0].to_plan(), place.runs_dir / requests[0].to_plan().run.folder_name(), torch.device("cpu"))
        job = Job.of("train", requests[1].to_plan().run, requests[1], 0, place)
        report = Report(failed={job.id: Outcome(job, 2)})
        return SimpleNamespace(run=lambda executor, rules, progress: report)

    monkeypatch.setattr(tuning.Sweep, "of", done_by)
    said = refused(capsys, *TUNE, "--grid", "tau=0.5,2", "--set", "attack.steps=1", "--workers", 2, code=1)
    assert "1 trials failed; at-bsl-digits-lt-" in said
    assert [trial.settings["tau"] for trial in read_trials("trials.json").trials] == [0.5]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grid", "tau=1,2,3", "--at-most", 2], "3 settings would be tried for trials.json, and at most 2 may be"),
        (["--grid", "tau=1,2,3,4,5,6,7,8,9"], "9 settings would be tried for trials.json, and at most 8 may be"),
        (["--grid", "tau=1", "--executor", "lokal"], "did you mean 'local'"),
        (["--grid", "tau=1", "--workers", 0], "workers"),
        (["--grid", "tua=1"], "did you mean 'tau'"),
        (["--grid", "tau"], "--grid tau=0.5,1"),
        (["--grid", "tau=1,wide"], "is a float"),
        (["--grid", "tau=1", "--metric", "pgd-5:tial"], "did you mean 'tail'"),
        (["--grid", "tau=1", "--metric", "pgd-6"], "did you mean 'pgd-5'"),
        (["--grid", "tau=1", "--trials", 0], "1 or more"),
    ],
)
def test_impossible_trials_are_refused_before_anything_is_trained(arguments, says, capsys, here):
    assert says in refused(capsys, *TUNE, *arguments)
    assert list(here.iterdir()) == []


def test_draws_from_a_grid_begin_with_the_same_ones():
    grid = {"tau": [1, 2, 3], "lr": [0.1, 0.2]}
    some, more = (tuning._points(grid, n) for n in (2, 4))
    assert more[:2] == some and len({str(p) for p in tuning._points(grid, 99)}) == 6


def test_a_run_with_a_holdout_is_tested_on_it_only(capsys, here, monkeypatch):
    """Other test images change nothing: they are never read."""
    held = [*RUN, "--holdout", "val"]
    code, out, _ = call(capsys, *held)
    said = " ".join(out.split())
    assert code == 0 and "39 held-out training images" in said and "join no board" in said
    (path,) = here.glob("runs/*/record.json")
    record = read_record(path)
    assert record.status.reduced and record.run.holdout == "val" and sum(record.run.test_counts) == 39
    assert not list(here.glob("results/records/**/*.json"))
    again = evaluate(path.parent, attacks=["pgd-5"])
    assert (again.bits["pgd-5"] == record.bits("pgd-5")).all()

    def noise(spec, place=None):
        source = load_source(spec, place)
        return replace(source, test_images=np.random.default_rng(0).permuted(source.test_images, axis=1))

    monkeypatch.setattr("ltrobust_bench.plan.task.load_source", noise)
    code, *_ = call(capsys, *held, "--runs-dir", "elsewhere")
    (path,) = here.glob("elsewhere/*/record.json")
    assert read_record(path).result.digest == record.result.digest
    said = refused(capsys, "eval", path.parent, "--imbalance-ratio", 5)
    assert "leave imbalance ratio" in said


def test_a_holdout_is_another_run():
    keys = {Request("at", "digits-lt", holdout=holdout).to_plan().run.key() for holdout in (None, "val")}
    assert len(keys) == 2
