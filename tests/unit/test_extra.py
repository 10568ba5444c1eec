"""Extra training data: declared, checked, a share of every batch, and never without its flag on a board."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from record_factory import synthetic_record
from stopping import StopAfter

import ltrobust_bench as lt
from ltrobust_bench.api import shuffle
from ltrobust_bench.cli.main import main
from ltrobust_bench.data import archive
from ltrobust_bench.data.extra import digest_of, extra_name, read_images
from ltrobust_bench.data.loader import DeviceData, TrainLoader, extra_of_each, mixed
from ltrobust_bench.errors import DataError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.records.rules import RULES, Case
from ltrobust_bench.report import tables
from ltrobust_bench.report.aggregate import boards, request_label
from ltrobust_bench.report.reproduce import command
from ltrobust_bench.report.site.pages import render
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import load_model

SMALL = {"protocol": "smoke", "epochs": 2, "limit_train": 64, "limit_test": 20}
CPU = torch.device("cpu")


def call(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def refused(capsys, *arguments):
    """The one line that a command is refused with."""
    code, _, error = call(capsys, *arguments)
    assert code in (1, 2) and len(error.splitlines()) == 1, error
    return error


@pytest.fixture
def declared(tmp_path, monkeypatch, capsys):
    """A folder with 30 made-up digits and their declaration, of which `generated.toml` is the name."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(30) % 10
    images = np.random.default_rng(0).integers(0, 255, (30, 1, 8, 8), dtype=np.uint8)
    np.savez("generated.npz", images=images, labels=labels)
    declare(capsys)
    return tmp_path


def declare(capsys, *more, saw="split"):
    asked = ("--kind", "generated", "--saw", saw, "--maker", 'a "uniform" drawing', "--share", "0.25")
    return call(capsys, "data", "declare", "digits-lt", "generated.npz", *asked, *more)


# --- the declaration ------------------------------------------------------------------------------------------


def test_what_is_declared_is_in_the_run_and_its_key(declared):
    plain, run = make_plan("at", "digits-lt", **SMALL).run, None
    for asked in ("generated.toml", str(declared / "generated.toml"), "generated"):
        run = make_plan("at", "digits-lt", extra_data=asked, data_dir=declared, **SMALL).run
        assert (run.extra.name, run.extra.kind, run.extra.saw, run.extra.share) == (
            "generated",
            "generated",
            "split",
            0.25,
        )
    assert run.extra.maker == 'a "uniform" drawing' and run.extra.counts == [3] * 10 and not run.extra.leaks
    assert run.key() != plain.key() and "extra" not in plain.model_dump(exclude_defaults=True)
    assert run.steps_per_epoch == plain.steps_per_epoch and run.train_counts == plain.train_counts
    assert Request.of(run).to_plan(declared).run.key() == run.key(), "found again by its name in the data folder"


def test_what_comes_with_the_records_is_found_by_its_name_unless_the_data_folder_has_one(declared):
    shipped = make_plan("at", "digits-lt", extra_data="averages", **SMALL).run.extra
    assert (shipped.kind, shipped.saw, shipped.counts) == ("generated", "split", [50] * 10)
    for kind in ("npz", "toml"):
        Path(f"generated.{kind}").rename(f"averages.{kind}")
    Path("averages.toml").write_text(Path("averages.toml").read_text().replace("generated.npz", "averages.npz"))
    assert make_plan("at", "digits-lt", extra_data="averages", data_dir=declared, **SMALL).run.extra.counts == [3] * 10


@pytest.mark.parametrize("archived", [False, True])
def test_the_same_images_have_one_digest_however_they_lie(tmp_path, archived):
    images = np.random.default_rng(0).integers(0, 255, (20, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 10
    wanted = digest_of(images, labels)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.savez(tmp_path / "b.npz", image=images.transpose(0, 2, 3, 1), label=labels.astype(np.uint8))
    for name in ("a.npz", "b.npz"):
        found, own, digest = read_images(tmp_path / name, (3, 8, 8), 10)
        assert digest == wanted and np.array_equal(found, images) and np.array_equal(own, labels)
    assert digest_of(images, labels[::-1]) != wanted != digest_of(images[::-1], labels)


def test_an_archive_gives_the_training_images_that_it_holds(tmp_path):
    task = make_task("digits-lt")
    archive.write(tmp_path / "x.zip", "digits-lt", task.source, task.split, imbalance_ratio=20, profile="exp")
    images, labels, _ = read_images(tmp_path / "x.zip", (1, 8, 8), 10)
    assert np.bincount(labels).tolist() == task.split.train_counts
    assert np.array_equal(images, task.source.train_pixels(np.sort(task.split.train)))


def test_what_is_missing_or_another_is_one_line(declared, capsys):
    run = ("run", "--method", "at", "--dataset", "digits-lt", "--protocol", "smoke", "--dry-run", "--extra-data")
    assert "there is no nowhere.toml, which would declare extra training data" in refused(capsys, *run, "nowhere.toml")
    assert "there is no other.toml" in refused(capsys, *run, "other")
    assert "names are small letters" in refused(capsys, *run, "../Up")
    text = Path("generated.toml").read_text()
    Path("bad.toml").write_text(text.replace('saw = "split"', 'saw = "nobody asks"'))
    assert "bad.toml declares no extra training data: saw: Input should be" in refused(capsys, *run, "bad.toml")
    Path("bad.toml").write_text(text.replace("0.25", "1.0"))
    assert "share: Input should be less than 1" in refused(capsys, *run, "bad.toml")
    Path("bad.toml").write_text(text.replace('sha256 = "', 'sha256 = "0').replace('0"\nfile', '"\nfile'))
    Path("bad.toml").write_text("\n".join(
        f'sha256 = "{"0" * 64}"' if line.startswith("sha256") else line for line in text.splitlines()
    ))  # fmt: skip
    assert "has digest" in (line := refused(capsys, *run, "bad.toml")) and "bad.toml declares 000000000000" in line
    Path("generated.npz").unlink()
    assert "there is no generated.npz, which holds extra training images" in refused(capsys, *run, "generated.toml")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": np.zeros((3, 1, 8, 8), np.float32), "labels": np.zeros(3, int)}, "float32 images of shape"),
        ({"images": np.zeros((3, 1, 9, 8), np.uint8), "labels": np.zeros(3, int)}, "instead of uint8 [M, 1, 8, 8]"),
        ({"images": np.zeros((3, 1, 8, 8), np.uint8), "labels": np.zeros(4, int)}, "instead of 3 integers"),
        ({"images": np.zeros((3, 1, 8, 8), np.uint8), "labels": np.zeros((3, 10))}, "float64 labels of shape (3, 10)"),
        ({"images": np.zeros((3, 1, 8, 8), np.uint8), "labels": np.full(3, 10)}, "labels 10 to 10 instead of 0 to 9"),
        ({"images": np.zeros((0, 1, 8, 8), np.uint8), "labels": np.zeros(0, int)}, "holds no images"),
        ({"x": np.zeros(3)}, "it has x, not images and labels"),
        ({"images": np.array([None]), "labels": np.zeros(1, int)}, "holds no numbers but objects"),
        (b"not a zip file", "is no .npz of images and labels"),
        (b"", "is no .npz of images and labels"),
    ],
)
def test_a_file_that_holds_something_else_is_one_line(tmp_path, arrays, says):
    path = tmp_path / "x.npz"
    path.write_bytes(arrays) if isinstance(arrays, bytes) else np.savez(path, **arrays)
    with pytest.raises(DataError, match="^.*$") as refusal:
        read_images(path, (1, 8, 8), 10)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_images_that_are_tested_on_are_refused(declared, capsys):
    task = make_task("digits-lt", holdout="val")
    test = make_task("digits-lt").source
    held_out = task.split.held_out
    pixels, labels = task.source.train_pixels(held_out), task.source.train_labels[held_out]
    for images, own, fine in ((test.test_images[:2], test.test_labels[:2], False), (pixels, labels, True)):
        np.savez("generated.npz", images=images, labels=own)
        code, _, error = declare(capsys, "--force")
        assert (code == 0) == fine and ("2 of its 2 images are tested on; take them out" in error) != fine
    # What is fair for a run that is tested on the test set is none for one that is tested on these very images.
    make_plan("at", "digits-lt", extra_data="generated.toml", **SMALL)
    with pytest.raises(DataError, match=f"{len(labels)} of its {len(labels)} images are tested on"):
        make_plan("at", "digits-lt", extra_data="generated.toml", holdout="val")


def test_a_declaration_is_not_overwritten_and_lies_beside_its_images(declared, capsys):
    before = Path("generated.toml").read_bytes()
    assert declare(capsys)[0] == 2 and Path("generated.toml").read_bytes() == before
    assert declare(capsys, "--force", saw="balanced")[0] == 0
    assert 'saw = "balanced"' in Path("generated.toml").read_text()
    assert declare(capsys, "--force", "--maker", " ")[0] == 2
    assert extra_name("a/b/c.toml") == extra_name("c") == "c"


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "extra", "batch", "share"), [(130, 7, 32, 0.3), (100, 500, 10, 0.9), (33, 3, 32, 0.01)]
)
def test_every_batch_has_its_share_and_no_image_comes_again_before_all_have(own, extra, batch, share):
    beside = extra_of_each(batch, share)
    assert beside == min(max(1, round(share * batch)), batch - 1)
    order = mixed(np.arange(own), own, extra, batch, beside, np.random.default_rng(0))
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    assert np.array_equal(order[order < own], np.arange(own)), "the others are in the order of the sampler"
    for one in batches[:-1]:
        assert len(one) == batch and (one >= own).sum() == beside
    rest = (batches[-1] < own).sum()
    assert (batches[-1] >= own).sum() in (beside, -(-rest * beside // (batch - beside))) and len(batches[-1]) > 1
    times = np.bincount(order[order >= own] - own, minlength=extra)
    assert times.max() - times.min() <= 1


def test_an_epoch_is_the_same_whichever_way_it_was_reached():
    own, other = (DeviceData(torch.full((n, 1, 2, 2), n, dtype=torch.uint8), torch.zeros(n).long()) for n in (50, 9))
    settings = {"batch_size": 8, "steps": 7, "padding": 0, "flip": False}
    made = [TrainLoader(own, shuffle, seed=s, extra=other, share=0.25, **settings) for s in (1, 1, 2)]
    first, again, another = ([loader.order(epoch) for epoch in (1, 2)] for loader in made)
    assert np.array_equal(first[1], again[1]) and not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], another[0])
    images = torch.cat([x for x, *_ in made[0].epoch(1)]).mul(255).round()[:, 0, 0, 0]
    assert sorted(images.unique().tolist()) == [9, 50] and (images == 9).sum() == 7 * 2
    plain = TrainLoader(own, shuffle, seed=1, **settings)
    assert len(plain.order(1)) == 50, "without extra data an epoch is what it was"


# --- runs -----------------------------------------------------------------------------------------------------


def test_a_run_with_extra_data_from_its_plan_to_its_page(declared, capsys):
    asked = {**SMALL, "extra_data": "generated", "data_dir": declared}
    plan = make_plan("reat", "digits-lt", **asked)
    with pytest.raises(KeyboardInterrupt):
        train_plan(plan, declared / "runs" / "cut" / plan.run.folder_name(), CPU, StopAfter(plan.budget - 1))
    resumed = train_plan(plan, declared / "runs" / "cut" / plan.run.folder_name(), CPU)
    settings = {"runs_dir": declared / "runs", "results_dir": None, "device": "cpu"}
    record = lt.run("reat", "digits-lt", **asked, **settings)
    (folder,) = (declared / "runs").glob("reat-*")
    digests = [load_model(path, device="cpu").weights_sha256 for path in (resumed.model_path, folder)]
    assert digests[0] == digests[1], "resumed equals uninterrupted"
    assert record.result.weights_sha256 != lt.run("reat", "digits-lt", **SMALL, **settings).result.weights_sha256
    assert record.run.extra.text == "generated: generated, 25 % of each batch, saw split"
    case = Case.of(record, None, datetime.now(UTC))
    assert [found for rule in RULES.values() for found in rule(case)] == []
    assert "--extra-data generated" in command([record])
    (board,) = boards([record])
    assert board.entries[0].label == "reat (extra_data=generated)" and "extra data" in board.entries[0].flags
    code, out, _ = call(
        capsys, "run", "--method", "reat", "--dataset", "digits-lt", "--protocol", "smoke", "--dry-run",
        "--extra-data", "generated.toml",
    )  # fmt: skip
    told = "extra data generated: generated, 25 % of each batch, saw split (30 images): boards show it without a rank"
    assert code == 0 and told in " ".join(out.split())
    assert request_label(Request("reat", "digits-lt", extra_data="x/generated.toml")) == board.entries[0].label


def test_what_builds_on_a_run_builds_on_one_with_the_same_extra_data(declared):
    plan = make_plan("crt", "digits-lt", extra_data="generated.toml", **SMALL)
    assert plan.base.run.extra == plan.run.extra and plan.base.extra is not None


def test_a_loss_that_is_not_finite_names_training_images_only(declared):
    plan = make_plan("at", "digits-lt", extra_data="generated.toml", settings={"lr": 1e30}, **SMALL)
    with pytest.raises(lt.LTBenchError, match="Training images of that step: [0-9, ]*\\.$"):
        train_plan(plan, declared / "runs" / "x", CPU)


# --- boards ---------------------------------------------------------------------------------------------------

TERMS = {
    "name": "gan", "kind": "generated", "saw": "split", "maker": "a GAN", "share": 0.3, "sha256": "0" * 64,
    "counts": [5, 5, 5, 5, 5, 5],
}  # fmt: skip


def with_extra(**terms):
    counts = synthetic_record().run.train_counts
    extra = {**TERMS, "counts": [5] * len(counts), **terms}
    return [synthetic_record(robustness=0.9, seed=seed, extra=extra) for seed in range(3)]


@pytest.mark.parametrize(
    ("saw", "leaks"), [("nothing", False), ("split", False), ("balanced", True), ("unknown", True)]
)
def test_it_has_a_flag_and_a_column_and_no_rank(saw, leaks):
    plain = [synthetic_record(robustness=0.3, seed=seed) for seed in range(3)]
    (board,) = boards([*with_extra(saw=saw), *plain])
    first, second = board.entries
    assert (first.label, first.rank) == ("synthetic (extra_data=gan)", None)
    assert (second.label, second.rank) == ("synthetic", 1)
    assert "extra data" in first.flags and ("tail leak" in first.flags) == leaks
    assert not {"extra data", "tail leak"} & set(second.flags)
    text = tables.leaderboard_csv([board])
    assert f'"gan: generated, 30 % of each batch, saw {saw}"' in text
    page = render([board])["index.html"]
    assert f'<td class="extra_data">gan: generated, 30 % of each batch, saw {saw}</td>' in page
    assert '<td class="extra_data">–</td>' in page
    assert 'class="extra_data"' not in render(boards(plain))["index.html"], "no column where nobody has any"


def test_other_terms_are_another_entry():
    (board,) = boards([*with_extra(), *with_extra(share=0.5), *with_extra(sha256="1" * 64)])
    assert len(board.entries) == 3 and len({entry.label for entry in board.entries}) == 3
