"""What `record validate` refuses, rule by rule, and that it refuses nothing that is honest."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from record_factory import synthetic_record

from ltrobust_bench.cards import methods
from ltrobust_bench.data.known import known_split
from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records import rules, strict
from ltrobust_bench.records.io import find_records, read_record, write_record
from ltrobust_bench.records.rules import case as case_module
from ltrobust_bench.records.rules import stated
from ltrobust_bench.records.schema import Record, Result
from ltrobust_bench.records.validate import COMMON_RULES, validate
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.scores.bits import pack

ROOT = Path(__file__).resolve().parents[2]
FIRST = ROOT / "tests" / "historic_records" / "v1-first-small-s0-db25c435.json"
LATER = ROOT / "tests" / "historic_records" / "v1-reliability-small-s0-d9b03824.json"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
DAY = "2026-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def raw_of(path=FIRST):
    return json.loads(path.read_text())


def seal(raw):
    raw["result"]["digest"] = Result.digest_of(raw["result"]["bits"], raw["result"]["broken_by"])
    return Record.model_validate(raw)


def file(record, root=Path("results")):
    path = root / "records" / record.run.record_path()
    write_record(record, path)
    return path


def problems(*records, root=Path("results")):
    for record in records:
        file(record, root)
    return validate([root / "records"], now=NOW).problems


def put(raw, where, value):
    *branches, key = where.split(" ")
    for branch in branches:
        raw = raw[int(branch) if branch.isdigit() else branch]
    raw[key] = value


def test_every_committed_record_is_sound():
    found = validate([ROOT / "results" / "records"])
    assert found.records >= 18 and found.problems == []


def test_a_real_record_with_everything_is_sound_where_it_belongs():
    assert problems(read_record(FIRST), read_record(LATER)) == []


CASES = [
    (
        "known-protocol",
        "run protocol",
        "digits-v1",
        "must be an installed protocol: digits-l2-v0, digits-v0, ltr-",
    ),
    ("known-protocol", "run protocol_digest", "0" * 64, "the digest of digits-v0 for digits-lt"),
    ("known-protocol", "run dataset", "cifar10-lt", "must be a data set of protocol digits-v0: digits-lt"),
    ("known-protocol", "run model", "resnet-18", "must be a registered network: preact-resnet18, resnet18, "),
    ("known-dataset", "run dataset", "digit-lt", "did you mean 'digits-lt'"),
    ("known-dataset", "run dataset", "cifar100-lt", "must have 100 classes"),
    ("known-dataset", "run source_sha256", "0" * 64, "belongs to folders and lists of images"),
    ("known-dataset", "run dataset", "folder-photos-32px", "belongs to folders and lists of images"),
    ("known-card", "run method", "raet", "must be a method with a card: alp, at, "),
    ("known-card", "run card_version", 2, "must be at most 1"),
    ("known-card", "run plugins", ["awpp"], "did you mean 'awp'"),
    ("known-card", "run plugins", ["awp", "robustlt"], "must be ['robustlt', 'awp'], the order of their cards"),
    ("options", "run options", {"count_at": "before", "tail": "off"}, "is missing (got 'nothing')"),
    ("options", "run options tial", "off", "is no option of this method"),
    ("options", "run options tail", "maybe", "must be one of official"),
    ("recipe", "run recipe lr", 0.2, "must be 0.1, as protocol digits-v0 and card reat say in track fixed (got 0.2)"),
    ("recipe", "run recipe epochs", 120, "must be 60"),
    ("recipe", "run recipe attack steps", 20, "must be 10"),
    ("terms", "run threat_model", "L2", "must be 'Linf'"),
    ("terms", "run epsilon", 0.1, "must be 0.15"),
    ("terms", "run augmentation flip", True, "must be False"),
    ("split", "run imbalance_ratio", 50.0, "must be [124, 80, 51, "),
    ("split", "run imbalance_ratio", 500.0, "classes empty"),
    ("split", "run train_index_sha256", "0" * 64, "must be 'e6500babc860"),
    ("split", "run test_index_sha256", "0" * 64, "must be '0306ebc22b9f"),
    ("split", "run profile", "own", "must be 20.67, largest over smallest class"),
    ("base", "run base_key", "0" * 64, "the card has no base"),
    ("base", "cost base", {"forwards": 1, "backwards": 1, "seconds": 1.0}, "the card has no base"),
    ("budget", "cost optimizer_steps", 421, "must be 420, 60 epochs of 7"),
    ("work", "cost training forwards", 419, "must be at least 420"),
    ("work", "cost training seconds", 0.0, "must be above 0"),
    ("work", "cost evaluation forwards", 3831, "must be at least 3832"),
    ("work", "cost evaluation backwards", 475, "must be at least 476"),
    ("searched", "result search", "bf16", "is missing: the search was in reduced precision"),
    ("searched", "result searched", {"confirmed": 0, "unconfirmed": 0, "broken_again": 0}, "belongs to a search on"),
    ("environment", "environment tf32", True, "full float32"),
    ("environment", "environment precision", "bf16", "must be 'fp32'"),
    ("environment", "environment pyautoattack", None, "must be a version"),
    ("environment", "environment torch", "", "must be a version"),
    ("environment", "environment device", " ", "must name the processor"),
    ("environment", "environment created", "2026-02-30T00:00:00Z", "must be a time"),
    ("environment", "environment created", "2026-12-02T00:00:01Z", "and now (2026-12-01)"),
    ("environment", "environment created", "2023-12-31T23:59:59Z", "must lie between 2024-01-01"),
    ("provenance", "environment git_commit", None, "run it from a git checkout"),
    ("provenance", "environment git_commit", "b22157a", "must be a full commit"),
    ("provenance", "environment git_dirty", True, "must be false: commit ltrobust_bench/"),
    ("provenance", "environment git_dirty", None, "must be false: a session was not recorded"),
]


@pytest.mark.parametrize(("rule", "where", "value", "says"), CASES, ids=lambda v: str(v)[:40])
def test_rule(rule, where, value, says):
    raw = raw_of()
    put(raw, where, value)
    found = [p for p in problems(seal(raw)) if p.rule == rule]
    assert any(says in str(p) for p in found), found
    assert all(str(p).isprintable() and p.path.startswith("results/records/") for p in found)


SESSIONS = [
    ("environment", "environment git_dirty", True, "must be False, the worst of its sessions"),
    ("environment", "environment git_commit", "c" * 40, "the last session's"),
    ("environment", "environment package_version", "9.9", "the last session's"),
    ("provenance", "environment code 0 commit", "abc1234", "must be a full commit"),
    ("provenance", "environment code 0 work", "evaluation", "must be of evaluation, training, and of nothing else"),
    ("provenance", "environment code 0 work", "base", "must be of evaluation, training, and of nothing else"),
    ("provenance", "environment code 0 method_sha256", "9" * 64, "the method was edited between training and evalu"),
]


def recorded():
    """A record whose sessions are known."""
    raw = raw_of()
    env = raw["environment"]
    known = {"package_version": env["package_version"], "commit": env["git_commit"], "dirty": False}
    known |= {"method_sha256": "1" * 64, "package_sha256": "2" * 64}
    env["code"] = [{"work": work, **known} for work in ("training", "evaluation")]
    return raw


def test_what_sessions_say_is_sound():
    assert problems(seal(recorded())) == []


@pytest.mark.parametrize(("rule", "where", "value", "says"), SESSIONS, ids=lambda v: str(v)[:40])
def test_rule_about_sessions(rule, where, value, says):
    raw = recorded()
    put(raw, where, value)
    assert any(says in str(p) and p.rule == rule for p in problems(seal(raw)))


MEASURED = [
    ("reliability images", 501, "must be at most 500"),
    ("reliability confidence", 0.09, "must be at least 0.1"),
    ("reliability accuracy_at_half", 0.001, "must be a share of 200 images"),
    ("reliability accuracy_by_radius", {"1": 0.333}, "must be a share of 200 images"),
    ("run base_key", None, "is missing: the card builds on a finished run"),
    ("cost base", None, "is missing: the card builds on a finished run"),
    ("cost optimizer_steps", 420, "must be 462, 6 epochs of 7, and 420 before"),
    ("cost base seconds", 1e6, "must be at least 1e+06"),
]


@pytest.mark.parametrize(("where", "value", "says"), MEASURED, ids=lambda v: str(v)[:40])
def test_rule_about_what_builds_on_another_run_and_what_was_measured(where, value, says):
    raw = raw_of(LATER)
    put(raw, where, value)
    assert says in " ".join(map(str, problems(seal(raw))))


def test_the_mathematics_of_the_least_work():
    """Every image once, and once more for each attack if it is classified correctly when clean."""
    record = read_record(FIRST)
    assert 500 + record.bits("clean").sum() * 7 == 3832


def test_overrides_are_owned_up_to_in_full():
    def with_overrides(recipe, overrides):
        raw = raw_of()
        raw["run"]["recipe"] |= recipe
        raw["run"]["overrides"] = overrides
        raw["status"]["off_recipe"] = True
        return {found.field: found.allowed for found in stated.recipe(of(seal(raw)))}

    assert with_overrides({"lr": 0.05}, {"lr": 0.05}) == {}
    assert "as the recipe holds it" in with_overrides({"lr": 0.05}, {"lr": 0.06})["run.overrides.lr"]
    assert "must be 0.1" in with_overrides({"lr": 0.05}, {"momentum": 0.9})["run.recipe.lr"]
    assert "changes nothing" in with_overrides({}, {"momentum": 0.9})["run.overrides.momentum"]
    assert "is no recipe setting" in with_overrides({"epochs": 600}, {"epochs": 600})["run.overrides.epochs"]
    assert "unknown value of lr_schedule" in with_overrides({}, {"lr_schedule": "cosin"})["run.overrides"]
    assert "must be" in with_overrides({}, {"lr_schedule": "cosine"})["run.recipe.schedule"]
    assert "as the recipe holds it" in with_overrides({}, {"optimizer.beta2": 0.9})["run.overrides.optimizer.beta2"]


def test_the_suite_is_the_protocols():
    for remove, add in (("pgd-100", None), (None, "square")):
        raw = raw_of()
        bits = raw["result"]["bits"]
        if add:
            bits[add] = bits["pgd-20"]
        else:
            del bits[remove]
        (found,) = problems(seal(raw), root=Path(str(remove)))
        assert found.rule == "terms" and "exactly the attacks autoattack, cw-20, fgsm" in found.allowed


@pytest.mark.parametrize("limit", ["limit_train", "limit_test", "epochs", "holdout"])
def test_reduced_runs_join_no_board_but_are_sound_elsewhere(limit):
    raw = raw_of()
    raw["run"][limit], raw["status"]["reduced"] = "val" if limit == "holdout" else 30, True
    if limit == "epochs":
        raw["run"]["recipe"]["epochs"], raw["cost"]["optimizer_steps"] = 30, 210
    record = seal(raw)
    assert "reduced runs join no board" in " ".join(p.allowed for p in problems(record) if p.rule == "full")
    write_record(record, Path("runs/record.json"))
    if limit == "epochs":
        assert validate([Path("runs")], now=NOW).problems == []


def test_smoke_tests_join_no_board():
    record = read_record(FIRST)
    smoke = load_protocol("smoke")
    section = record.run.model_copy(update={"protocol": "smoke", "protocol_digest": smoke.digest("digits-lt")})
    found = problems(record.model_copy(update={"run": section}))
    assert "smoke tests join no board" in {p.allowed for p in found}


def test_a_record_lies_where_its_run_says():
    record = read_record(FIRST)
    write_record(record, Path("results/records/elsewhere.json"))
    (found,) = validate([Path("results/records")], now=NOW).problems
    assert found.rule == "place" and record.run.record_path() in found.allowed and found.seen == "'elsewhere.json'"


def of(record):
    return rules.Case.of(record, None, NOW)


def test_an_older_card_is_believed_in_what_only_it_could_say(monkeypatch):
    entry = methods.get("reat")
    newer = entry.card.model_copy(update={"version": 2, "options": {}})
    monkeypatch.setattr(case_module, "methods", {"reat": SimpleNamespace(card=newer)})
    raw = raw_of()
    assert not [p for name in ("options", "recipe", "base") for p in rules.RULES[name](of(seal(raw)))]
    raw["run"]["recipe"]["epochs"] = 61
    assert [p.field for p in stated.recipe(of(seal(raw)))] == ["run.recipe.epochs"]


def folder_record(train_counts, classes_bits, **run):
    protocol = load_protocol("ltr-linf-v1")
    terms = {"protocol": "ltr-linf-v1", "protocol_digest": protocol.digest("folder"), "dataset": "folder-photos-32px"}
    terms |= {"source_sha256": "f" * 64, "epsilon": 8 / 255, "augmentation": {"crop_padding": 4, "flip": True}}
    return synthetic_record(classes_bits, train_counts=train_counts, **{**terms, **run})


def test_folders_of_images():
    suite = ["fgsm", "pgd-20", "pgd-100", "mim-20", "cw-20", "scaled-pgd-20"]
    bits = {name: [1, 1, 1, 0] for name in ["clean", *suite, "aa-small-c"]}
    own = folder_record([90, 40], bits, profile="own", imbalance_ratio=2.25)
    assert not [*stated.terms(of(own)), *stated.split(of(own)), *stated.known_dataset(of(own))]
    assert "must be 2.25" in str(*stated.split(of(folder_record([90, 40], bits, profile="own", imbalance_ratio=2.0))))
    assert not list(stated.split(of(folder_record([90, 45], bits, imbalance_ratio=2.0))))
    assert "must be [90, 45]" in str(*stated.split(of(folder_record([90, 40], bits, imbalance_ratio=2.0))))
    assert "must be equal" in str(*stated.split(of(folder_record([90, 40], bits, profile="balanced"))))
    # With two classes the ensemble is not AutoAttack.
    bits["autoattack"] = bits.pop("aa-small-c")
    assert "aa-small-c" in str(*stated.terms(of(folder_record([90, 40], bits, profile="own", imbalance_ratio=2.25))))


def cifar(**run):
    protocol = load_protocol("ltr-linf-v1")
    record = synthetic_record(tests_per_class=1000, train_counts=[5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100])
    terms = {"protocol": "ltr-linf-v1", "protocol_digest": protocol.digest("cifar10-lt"), "dataset": "cifar10-lt"}
    return record.model_copy(update={"run": record.run.model_copy(update={**terms, "imbalance_ratio": 50.0, **run})})


def test_cifar10_is_checked_without_its_images():
    """The literature's subset: its first digits are in the paper trail, the rest was computed from the real labels."""
    wrong = {f.field: f.allowed for f in stated.split(of(cifar()))}
    assert wrong.keys() == {"run.train_index_sha256", "run.test_index_sha256"}
    assert wrong["run.train_index_sha256"].startswith("must be 'd7edcfaf02772bee")
    assert [f.field for f in stated.split(of(cifar(imbalance_ratio=49.0)))][0] == "run.train_counts"
    known = known_split("cifar100-lt", 10.0, "exp")
    assert known.train_counts[:2] == [500, 488] and sum(known.train_counts) == 19573
    assert known.train_sha256.startswith("b4fbf1bf") and known.test_sha256.startswith("129064f7")
    other = known_split("cifar100-lt", 11.0, "exp")
    assert other.train_sha256 is None and other.test_sha256 == known.test_sha256
    assert known_split("cifar10-lt", 50.0, "exp", test_per_class=99).test_sha256 is None
    assert known_split("folder-photos-32px", None, "own") is None


@pytest.mark.parametrize("terms", [{"limit_train": 80, "limit_test": 30}, {"limit_train": 80, "holdout": "val"}])
def test_known_splits_of_packaged_data_are_the_real_ones(terms):
    split = make_task("digits-lt", imbalance_ratio=7, profile="step", **terms).split
    known = known_split("digits-lt", 7.0, "step", **terms)
    assert (known.train_counts, known.test_counts) == (split.train_counts, split.test_counts)
    assert (known.train_sha256, known.test_sha256) == (split.train_sha256, split.test_sha256)


def test_a_holdout_of_cifar10_is_checked_without_its_images():
    record = cifar(holdout="val", train_counts=[4500, 2914, 1887, 1222, 791, 512, 332, 215, 139, 90])
    assert [f.field.split(".")[1].rstrip("[]0123456789") for f in rules.RULES["split"](of(record))] == ["test_counts"]
    known = known_split("cifar10-lt", 50.0, "exp", holdout="val")
    assert known.test_counts == [500, 323, 209, 135, 87, 56, 36, 23, 15, 10]
    assert known.train_sha256 is known.test_sha256 is None


def other_seed(raw, seed, weights):
    raw = copy.deepcopy(raw)
    raw["run"]["seed"], raw["result"]["weights_sha256"] = seed, weights * 64
    return seal(raw)


def test_records_beside_one_another():
    raw = raw_of()
    first, second = other_seed(raw, 1, "a"), other_seed(raw, 2, "a")
    found, *others = sorted(problems(first, second), key=lambda problem: problem.rule != "weights-of-one-seed")
    assert {problem.rule for problem in others} <= {"equal-bits", "seeds-from-zero"}
    assert found.rule == "weights-of-one-seed" and first.run.record_path() in found.allowed
    write_record(first, Path("results/records/twice.json"))
    rules_broken = {p.rule for p in validate([Path("results/records")], now=NOW).problems}
    assert rules_broken == {"weights-of-one-seed", "equal-bits", "seeds-from-zero", "place", "one-file-a-run"}


def test_what_nothing_else_knows_the_other_records_decide():
    bits = {name: [1, 1, 1, 0] for name in ("clean", "fgsm")}
    for seed, index in enumerate("aab"):
        record = folder_record(
            [9, 4], bits, profile="own", imbalance_ratio=2.25, train_index_sha256=index * 64, seed=seed
        )
        write_record(record, Path(f"{seed}.json"))
    found = [p for p in validate([Path(f"{s}.json") for s in range(3)], now=NOW).problems if p.rule == "one-split"]
    assert [(p.path, p.field) for p in found] == [("2.json", "run.train_index_sha256")]
    assert "as in 2 other records" in found[0].allowed


GOOD = FIRST.read_bytes()
HOSTILE = {
    "empty": (lambda p: p.write_bytes(b""), "Expecting value"),
    "cut off": (lambda p: p.write_bytes(GOOD[:1000]), "line "),
    "no text": (lambda p: p.write_bytes(b"\xff" + GOOD), "can't decode byte 0xff"),
    "utf-16": (lambda p: p.write_bytes(GOOD.decode().encode("utf-16")), "can't decode byte 0xff"),
    "byte order mark": (lambda p: p.write_bytes(b"\xef\xbb\xbf" + GOOD), "BOM"),
    "nan": (lambda p: p.write_bytes(GOOD.replace(b"0.15", b"NaN", 1)), "NaN is no finite number"),
    "infinity": (lambda p: p.write_bytes(GOOD.replace(b"0.15", b"1e999", 1)), "1e999 is no finite number"),
    "digits": (lambda p: p.write_bytes(GOOD.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000)), "number of 5000 digits"),
    "twice": (lambda p: p.write_bytes(GOOD.replace(b'"seed": 0', b'"seed": 0, "seed": 1')), "key 'seed' stands twice"),
    "nested": (lambda p: p.write_bytes(b'{"a":' * 100_000), "nested too deeply"),
    "huge": (lambda p: p.write_bytes(GOOD + b" " * strict.LARGEST), "larger than 1,000,000 bytes"),
    "escape codes": (lambda p: p.write_bytes(GOOD.replace(b"AMD", rb"\u001b[2J")), "characters that do not print"),
    "right to left": (lambda p: p.write_bytes(GOOD.replace(b"AMD", rb"\u202e")), "characters that do not print"),
    "half a character": (lambda p: p.write_bytes(GOOD.replace(b"AMD", rb"\ud800")), "characters that do not print"),
    "a list": (lambda p: p.write_bytes(b"[]"), "schema_version: must be 1"),
    "a later version": (lambda p: p.write_bytes(GOOD.replace(b'_version": 1', b'_version": 2', 1)), "(got 2)"),
    "true is not 1": (lambda p: p.write_bytes(GOOD.replace(b'_version": 1', b'_version": true', 1)), "(got True)"),
    "a folder": (lambda p: p.mkdir(), "no plain file"),
    "a pipe": (lambda p: os.mkfifo(p), "no plain file"),
    "a link": (lambda p: p.symlink_to(FIRST), "symbolic link"),
    "a link to nothing": (lambda p: p.symlink_to("nowhere"), "symbolic link"),
    "many options": (
        lambda p: p.write_text(json.dumps(raw_of() | {"run": raw_of()["run"] | {"options": dict.fromkeys("abc", [])}})),
        "run.options.a",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_named_and_the_rest_is_examined(name):
    make, says = HOSTILE[name]
    good = file(read_record(LATER))
    bad = good.with_name("bad.json")
    make(bad)
    report = validate([Path("results/records")], now=NOW)
    assert report.records == 2 and {p.path for p in report.problems} == {str(bad)}
    assert says in str(report.problems[0]) and str(report.problems[0]).isprintable()
    assert len(str(report.problems[0])) < 700
    if "link" not in name:  # a board may be read through a link; a submission may not be one
        records, messages = find_records([Path("results/records")])
        assert [r.id for r in records] == [read_record(LATER).id] and len(messages) == 1
        assert str(bad) in messages[0] and messages[0].isprintable()


def test_names_of_files_are_escaped():
    bad = Path("results/records/\x1b[2Jx\u202e.json")
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    (found,) = validate([Path("results")]).problems
    assert str(found).isprintable() and "\\x1b[2Jx\\u202e.json" in found.path
    with pytest.raises(RecordError) as error:
        read_record(bad)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("edit", "field", "seen"),
    [
        (lambda r: r["result"].update(digest="0" * 64), "result.digest", f"'{'0' * 64}'"),
        (lambda r: r["result"]["bits"].update(fgsm="////"), "result.bits.fgsm", "'////'"),
        (lambda r: r["result"]["bits"].update(fgsm=pack(np.ones(500), 1)), "result.bits.fgsm", "'////"),
        (lambda r: r["result"].update(broken_by=None), "result.broken_by", "None"),
        (lambda r: r["status"].update(reduced=True), "status.reduced", "True"),
        (lambda r: r["run"]["train_counts"].pop(), "run.test_counts", "[50, 50"),
        (lambda r: r["cost"].pop("training"), "cost.training", "'nothing'"),
        (lambda r: r["run"].update(recipe=None), "run.recipe", "None"),
    ],
)
def test_schema_problems_name_field_and_value(edit, field, seen):
    raw = raw_of()
    edit(raw)
    Path("x.json").write_text(json.dumps(raw))
    (found,) = validate([Path("x.json")]).problems
    assert (found.rule, found.field) == ("schema", field) and found.seen.startswith(seen[:60])


def test_a_board_is_built_from_whatever_passes_the_schema():
    """Absurd values that only the rules refuse do not stop the board."""
    raw = raw_of(LATER)
    raw["run"] |= {"train_counts": [10**9] * 10, "imbalance_ratio": 1e308, "card_version": 10**17}
    raw["run"]["options"] = {"x" * 200: 10**17, "": None}
    raw["run"]["recipe"]["attack"]["epsilon"] = 1e308
    raw["reliability"]["accuracy_by_radius"] = {"00": 0.0, "9" * 20: 1.0}
    raw["reliability"]["images"] = 10**17
    (board,) = boards([seal(raw)])
    assert len(board.entries) == 1


def test_a_board_inside_a_board_is_none():
    """There, a run could be filed a second time, and a retraction would be nobody's."""
    path = file(read_record(LATER))
    inner = file(read_record(LATER), Path("results/records"))
    found = {(p.path, p.rule) for p in validate([Path("results/records")], now=NOW).problems}
    assert found == {(str(inner), "place"), (str(inner), "one-file-a-run")}
    # Named on its own, as a pull request's files are, it is examined like that too.
    assert {(p.path, p.rule) for p in validate([Path("results/records"), inner], now=NOW).problems} == found
    inner.unlink()
    for folder in ("retractions", "verifications"):
        stray = Path("results/records") / folder / f"{read_record(path).id}.json"
        stray.parent.mkdir()
        said = {"record": read_record(path).id, "path": str(path), "reason": "mine is better", "date": "2026-01-01"}
        stray.write_text(json.dumps(said))
        assert {p.path for p in validate([Path("results/records")], now=NOW).problems} == {str(stray)}
        assert [r.id for r in find_records([Path("results/records")])[0]] == [read_record(path).id]
        stray.unlink()


def git(*arguments, cwd="."):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def checkout():
    git("init", "--quiet")
    paths = [file(read_record(path)) for path in (FIRST, LATER)]
    git("add", ".")
    git("commit", "--quiet", "--message", "records")
    return paths


RECORDS = [Path("results/records")]


def test_nothing_is_edited_or_deleted(checkout):
    first, later = checkout
    assert validate(RECORDS).problems == [] and validate(RECORDS).against.startswith("HEAD (")
    edited = first.read_text().replace('"trials": 0', '"trials": 1')
    first.write_text(edited)
    later.unlink()
    found = {(p.path, p.rule): p.allowed.partition(";")[0] for p in validate(RECORDS).problems}
    assert found == {(str(first), "append-only"): "edited", (str(later), "append-only"): "deleted"}
    assert validate([later]).problems[0].allowed.startswith("deleted")
    git("commit", "--quiet", "--all", "--message", "an edit")
    assert validate(RECORDS).problems == []
    assert len(validate(RECORDS, against="HEAD~1").problems) == 2


def test_new_records_are_welcome_and_a_branch_answers_for_its_own_edits_only(checkout):
    first, later = checkout
    git("switch", "--quiet", "--create", "branch")
    file(other_seed(raw_of(), 1, "a"))
    git("add", ".")
    git("commit", "--quiet", "--message", "one more")
    git("switch", "--quiet", "main")
    file(other_seed(raw_of(), 2, "b"))
    git("add", ".")
    git("commit", "--quiet", "--message", "meanwhile")
    git("switch", "--quiet", "branch")
    assert {p.rule for p in validate(RECORDS, against="main").problems} == {"equal-bits"}, "it is a copy, and no edit"
    later.unlink()
    later.symlink_to(FIRST)
    assert {p.allowed.partition(";")[0] for p in validate(RECORDS, against="main").problems} >= {"replaced by a link"}


def test_without_git(tmp_path):
    file(read_record(FIRST))
    assert validate(RECORDS).against == ""
    with pytest.raises(UsageError, match="lies in no git checkout"):
        validate(RECORDS, against="main")
    git("init", "--quiet")
    assert validate(RECORDS).against == "", "a repository without a commit"
    with pytest.raises(UsageError, match="no such commit"):
        validate(RECORDS, against="--output=x")


def test_a_retracted_record_counts_nowhere(checkout):
    retraction = Path("results/retractions/x.json")
    record = read_record(FIRST)
    wrong = other_seed(raw_of(), 3, record.result.weights_sha256[0])
    wrong = wrong.model_copy(update={"environment": wrong.environment.model_copy(update={"git_dirty": True})})
    file(wrong)
    ours = "provenance", "equal-bits", "seeds-from-zero"
    assert {p.rule for p in validate(RECORDS).problems if p.path.endswith(f"-{wrong.run.key()[:8]}.json")} == set(ours)
    stated = {"record": wrong.id, "path": wrong.run.record_path(), "reason": "dirty", "date": "2026-01-01"}
    retraction = retraction.with_name(f"{wrong.id}.json")
    retraction.parent.mkdir()
    retraction.write_text(json.dumps(stated))
    report = validate(RECORDS)
    assert report.problems == [] and (report.records, report.retracted) == (3, 1)
    for path in (Path("results"), Path("results/records/digits-v0"), Path("results/records", wrong.run.record_path())):
        assert (validate([path]).problems, validate([path]).retracted) == ([], 1)
    found, messages = find_records(RECORDS)
    assert {r.id for r in found} == {record.id, read_record(LATER).id} and messages == []
    for edit, says in (
        ({"path": "x.json"}, "must be digits-v0/"),
        ({"record": "0" * 12}, "as the file is called"),
        ({"reason": "a\nb"}, "characters that do not print"),
        ({"reason": ""}, "reason: "),
        ({"date": "2026-02-30"}, "date: "),
        ({"note": ""}, "note: Extra inputs"),
    ):
        retraction.write_text(json.dumps(stated | edit))
        assert says in " ".join(str(p) for p in validate(RECORDS).problems if p.rule == "retraction")
    retraction.unlink()
    retraction.with_name("0123456789ab.json").write_text(json.dumps(stated | {"record": "0123456789ab"}))
    (unknown,) = [p for p in validate(RECORDS).problems if p.rule == "retraction"]
    assert "must be the id of a filed record" in unknown.allowed


def test_retractions_are_append_only_too(checkout):
    record = read_record(FIRST)
    path = Path(f"results/retractions/{record.id}.json")
    path.parent.mkdir()
    stated = {"record": record.id, "path": record.run.record_path(), "reason": "x", "date": "2026-01-01"}
    path.write_text(json.dumps(stated))
    git("add", ".")
    git("commit", "--quiet", "--message", "retracted")
    assert validate(RECORDS).problems == []
    path.unlink()
    assert [(p.rule, p.path) for p in validate(RECORDS).problems] == [("append-only", str(path))]


@pytest.fixture
def fuzzer(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return __import__("fuzz_records")


def test_a_few_hundred_mutated_records(fuzzer):
    found = CliRunner().invoke(fuzzer.main, ["--count", str(3 * len(fuzzer.MUTATIONS)), "--seed", "7"])
    assert found.exit_code == 0, found.output
    assert f"in {len(fuzzer.MUTATIONS)} classes" in found.output and " 0 wrong verdicts" in found.output


def test_every_rule_has_its_mutations(fuzzer):
    assert {m.rule for m in fuzzer.MUTATIONS} == {None, "json", "schema", *rules.RULES, *COMMON_RULES}
    assert len({m.name for m in fuzzer.MUTATIONS}) == len(fuzzer.MUTATIONS)


def test_the_fuzzer_notices_a_rule_that_is_gone_and_one_too_many(fuzzer, monkeypatch):
    monkeypatch.setitem(rules.RULES, "budget", lambda case: iter(()))
    found = CliRunner().invoke(fuzzer.main, ["--count", str(len(fuzzer.MUTATIONS))])
    assert found.exit_code == 1 and "WRONG no steps: expected budget, found nothing" in found.output
    monkeypatch.undo()

    def suspicious(case):
        if not case.record.environment.device.isascii():
            yield strict.finding("environment.device", "must be ASCII", case.record.environment.device)

    monkeypatch.setitem(rules.RULES, "suspicious", suspicious)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = CliRunner().invoke(fuzzer.main, ["--count", str(10 * len(fuzzer.MUTATIONS))])
    assert found.exit_code == 1 and "WRONG another machine: expected no problem" in found.output


def test_no_torch():
    code = (
        f"from ltrobust_bench.cli.main import main; import sys; main(['record', 'validate', {str(FIRST)!r}]);"
        "import ltrobust_bench.records.filing; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
