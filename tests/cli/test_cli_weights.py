"""Networks that come with the package: named, found, verified, and refused in one line where something is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from command_line import call, refused

import ltrobust_bench as lt
from ltrobust_bench import verbs
from ltrobust_bench.errors import CheckpointError, UnknownNameError, UsageError
from ltrobust_bench.files import write_large
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records import weights
from ltrobust_bench.records.io import find_records, read_record, write_record
from ltrobust_bench.records.validate import validate


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A reduced run of a network of digits size, and results in which its record is filed."""
    place = tmp_path_factory.mktemp("shipping")
    record = lt.run(
        "at-bsl", "digits-lt", protocol="smoke", limit_train=60, limit_test=20, epochs=1, runs_dir=place / "runs",
        results_dir=None, device="cpu",
    )  # fmt: skip
    write_record(record, place / "results" / "records" / record.run.record_path())
    (run,) = (place / "runs").iterdir()
    assert verbs.ship(run, place / "results") == "smoke:at-bsl"
    return place, run, record


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """Results of one's own, with the network."""
    shutil.copytree(finished[0] / "results", tmp_path / "results")
    monkeypatch.setenv("LTBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def test_a_name_gives_the_network_that_the_record_is_about(place, finished):
    loaded = lt.load_model("smoke:at-bsl")
    again = lt.load_model(finished[1])
    assert loaded.weights_sha256 == finished[2].result.weights_sha256 == again.weights_sha256
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded.model(images), again.model(images))


def test_it_is_attacked_by_its_name(place, capsys):
    code, out, _ = call(capsys, "eval", "smoke:at-bsl", "--attack", "pgd-5", "--limit-test", 20, "--device", "cpu")
    assert code == 0 and "smoke:at-bsl (part of the suite, no record)" in out and "pgd-5" in out
    code, out, _ = call(capsys, "list", "weights")
    assert code == 0 and "smoke:at-bsl" in out


def test_its_whole_evaluation_keeps_what_it_has_and_makes_nothing_twice(place, finished, capsys):
    typed = ["eval", "smoke:at-bsl", "--device", "cpu", "--runs-dir", "here"]
    code, out, _ = call(capsys, *typed)
    (path,) = (place.parent / "here").glob("*/record.json")
    assert code == 0 and path.parent.name == "eval-smoke-at-bsl" and f"record: {path.relative_to(place.parent)}" in out
    assert read_record(path).result.weights_sha256 == finished[2].result.weights_sha256
    code, out, _ = call(capsys, *typed)
    assert code == 0 and "already finished: reusing" in out
    assert sorted(path.name for path in (place / "weights").iterdir()) == ["index.json", "smoke-at-bsl.safetensors"]


def test_its_errors_are_those_of_its_filed_record(place, finished):
    found, beside = (verbs.analyse(network, device="cpu") for network in ("smoke:at-bsl", finished[1]))
    assert found.errors.csv() == beside.errors.csv() and found.errors.attack == "union"


def test_the_record_is_found_beside_it_and_the_index_is_none(place, finished):
    records, problems = find_records([place])
    assert [record.id for record in records] == [finished[2].id] and problems == []


def test_a_network_in_pieces_is_shipped_as_one_file(place, finished):
    run = place.parent / finished[1].name
    shutil.copytree(finished[1], run)
    whole = (run / "model.safetensors").read_bytes()
    write_large(run / "model.safetensors", whole, 20_000)
    assert not (run / "model.safetensors").exists()
    assert verbs.ship(run, place) == "smoke:at-bsl"
    assert (place / "weights" / "smoke-at-bsl.safetensors").read_bytes() == whole


def test_an_unknown_name_and_missing_or_damaged_weights_are_told_in_one_line(place, capsys):
    assert "did you mean 'smoke:at-bsl'" in refused(capsys, "eval", "smoke:at-bs")
    with pytest.raises(UnknownNameError, match="unknown network 'lite:nothing'"):
        lt.load_model("lite:nothing")
    path = place / "weights" / "smoke-at-bsl.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "smoke-at-bsl.safetensors are damaged (SHA-256" in refused(capsys, "eval", "smoke:at-bsl")
    path.unlink()
    assert "are missing; fetch the file again" in refused(capsys, "eval", "smoke:at-bsl")
    (place / "weights" / "index.json").write_text('{"smoke:at-bsl": {"file": "../x.safetensors"}}')
    assert "index.json is damaged: smoke:at-bsl.file" in refused(capsys, "eval", "smoke:at-bsl")


def test_a_file_of_that_name_goes_first(place, finished):
    shutil.copy(finished[1] / "model.safetensors", "smoke:at-bsl")
    (place / "weights" / "smoke-at-bsl.safetensors").unlink()
    assert lt.load_model("smoke:at-bsl").weights_sha256 == finished[2].result.weights_sha256


def about_weights(results):
    """What is wrong with the weights; the record itself is a reduced run's, which no board may have."""
    return [str(problem) for problem in validate([results / "records"]).problems if problem.rule == "weights"]


def test_validation_knows_what_may_lie_there(place):
    assert about_weights(place) == []
    folder = place / "weights"
    index = json.loads((folder / "index.json").read_text())

    def with_index(**changes):
        changed = {"smoke:at-bsl": index["smoke:at-bsl"] | changes}
        (folder / "index.json").write_text(json.dumps(changed))
        return about_weights(place)

    assert "must be the place of a filed record (got 'smoke/x.json')" in with_index(record="smoke/x.json")[0]
    assert "as its record states" in with_index(weights_sha256="0" * 64)[0]
    assert "must be the file that the index states" in with_index(sha256="0" * 64)[0]
    assert with_index() == []
    (folder / "more.safetensors").write_bytes(b"\0" * weights.MOST_BYTES)
    more, much = about_weights(place)
    assert "must be in the index" in more and "at most 8,000,000 bytes" in much
    (folder / "index.json").write_text("[")
    assert "index.json is damaged" in about_weights(place)[0]


def test_only_the_network_of_a_filed_record_is_shipped(place, finished, capsys):
    _, run, record = finished
    filed = place / "records" / record.run.record_path()
    other = record.model_copy(update={"result": record.result.model_copy(update={"weights_sha256": "0" * 64})})
    write_record(other, filed)
    with pytest.raises(UsageError, match="is the record of other weights"):
        verbs.ship(run, place)
    filed.unlink()
    assert "has no filed record" in refused(capsys, "record", "ship", run)
    write_record(record, filed)
    code, out, _ = call(capsys, "record", "ship", run, "--name", "smoke:another")
    assert code == 0 and out.startswith("smoke:another: ")
    assert lt.load_model("smoke:another").weights_sha256 == record.result.weights_sha256
    assert "is no name of a network" in refused(capsys, "record", "ship", run, "--name", "Another")
    assert "--name names one network" in refused(capsys, "record", "ship", run, run, "--name", "smoke:a")


def test_a_name_belongs_to_one_run_and_all_together_stay_small(place, monkeypatch):
    folder, before = place / "weights", (place / "weights" / "index.json").read_bytes()
    with pytest.raises(UsageError, match="smoke:at-bsl is the network of smoke/.*give this one another name"):
        weights.add(folder, "smoke:at-bsl", b"x", "0" * 64, "smoke/other.json")
    monkeypatch.setattr(weights, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="all together may have 1,000"):
        weights.add(folder, "smoke:b", b"x", "0" * 64, "smoke/b.json")
    assert (folder / "index.json").read_bytes() == before and not (folder / "smoke-b.safetensors").exists()


@pytest.mark.parametrize(
    ("protocol", "label", "name"),
    [
        ("ltr-linf-lite-v1", "at-bsl+robustlt", "lite:at-bsl+robustlt"),
        ("ltr-linf-lite-v1", "reat (tail=off, attack.bn_mode=batch)", "lite:reat-tail-off-attack.bn_mode-batch"),
        ("digits-l2-v0", "at", "digits-l2:at"),
        ("ltr-linf-v1", "robal (variant=N)", "ltr-linf:robal-variant-n"),
    ],
)
def test_names(protocol, label, name, finished):
    run = finished[2].run.model_copy(update={"protocol": protocol})
    assert isinstance(run, RunSection) and weights.name_of(run, label) == name and weights.is_name(name)


@pytest.mark.parametrize("path", ["runs/at", "model.safetensors", "C:\\runs", "/a:b/c", "a:", ""])
def test_paths_are_no_names(path):
    assert not weights.is_name(path)


@pytest.mark.board
def test_what_is_committed_is_whole_and_small(root):
    folder = root / "results" / "weights"
    index = weights.read_index(folder)
    for name, one in index.items():
        record = read_record(root / "results" / "records" / one.record)
        assert weights.objection(folder / one.file, one) == "", name
        assert lt.load_model(folder / one.file).weights_sha256 == one.weights_sha256 == record.result.weights_sha256
    assert sum(path.stat().st_size for path in folder.iterdir()) <= weights.MOST_BYTES
    with pytest.raises(CheckpointError, match="no index"):
        weights.read_index(root)
