"""Data sets by lists of images: reading, streaming, published lists, and a run of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ltrobust_bench as lt
from ltrobust_bench.api import shuffle
from ltrobust_bench.cli.main import ltbench
from ltrobust_bench.data import lists
from ltrobust_bench.data.lists import PUBLISHED, Files, Published, listed
from ltrobust_bench.data.loader import DeviceData, FileData, TrainLoader, training_set
from ltrobust_bench.data.registry import dataset_spec, locate
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.report.reproduce import _dataset

CPU = torch.device("cpu")


def picture(path: Path, seed: int, size=(24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def images(tmp_path):
    """Three classes of 9, 4 and 2 training and 2 test images each, with their lists elsewhere."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for label, (name, many) in enumerate({"ant": 9, "bee": 4, "cat": 2}.items()):
        for part, count in (("train", many), ("test", 2)):
            for i in range(count):
                folder = "val" if part == "test" else f"train/{name}"
                file = f"{folder}/{name}_{i}.png"
                picture(tmp_path / "images" / file, 100 * label + i + (50 if part == "test" else 0))
                lines[part].append(f"{file} {label}")
    (tmp_path / "lists").mkdir()
    for part, own in lines.items():
        (tmp_path / "lists" / f"My_LT_{part}.txt").write_text("\n".join(own) + "\n")
    return tmp_path


def typed(images, size=8):
    return f"lists:{images}/lists/My_LT_train.txt,{images}/lists/My_LT_test.txt@{size}"


def test_lists_are_a_data_set(images):
    task = Request("at", typed(images), protocol="smoke").task(images / "images")
    assert task.spec.name == "lists-my_lt_train-8px" and task.split.train_counts == [9, 4, 2]
    assert task.source.class_names == ("ant", "bee", "cat") and task.imbalance_ratio == 4.5
    first = np.asarray(Image.open(images / "images/train/ant/ant_0.png").resize((8, 8)))
    assert task.source.train_images.shape == (15, 3, 8, 8) and first.shape == (8, 8, 3)
    assert dataset_spec("lists-my_lt_train-8px").shape == (3, 8, 8)
    assert _dataset("lists-my_lt_train-8px") == "lists:my_lt_train.txt,TEST.txt@8"
    spec, place = locate(typed(images), None)
    assert place == images / "lists" and spec.arguments[0] == 8, "below the lists' own folder where nobody says"


def test_images_that_memory_should_not_hold_are_read_when_they_are_needed(images, monkeypatch):
    held = Request("at", typed(images), protocol="smoke").task(images / "images").source
    monkeypatch.setattr(lists, "HELD", 1000)
    streamed = listed(images / "images", 8, *(str(images / f"lists/My_LT_{part}.txt") for part in ("train", "test")))
    assert streamed.streams and not held.streams and "read from their files" in streamed.notes[0]
    chosen = np.array([14, 3, 3, 8])
    assert (streamed.train_pixels(chosen) == held.train_pixels(chosen)).all()
    assert (streamed.test_pixels(chosen[1:3]) == held.test_pixels(chosen[1:3])).all()
    data = [training_set(source, np.arange(15)[::-1].copy(), CPU) for source in (streamed, held)]
    assert isinstance(data[0], FileData) and isinstance(data[1], DeviceData)
    terms = {"batch_size": 4, "steps": 4, "seed": 1, "padding": 1, "flip": True}
    loaders = [TrainLoader(part, shuffle, **terms) for part in data]
    for one, other in zip(*(loader.epoch(2, first=1) for loader in loaders), strict=True):
        assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    (images / "images/train/ant/ant_3.png").write_bytes(b"no picture")
    with pytest.raises(LTBenchError, match=r"ant_3.png cannot be read"):
        list(loaders[0].epoch(1))


def test_validation_images_in_folders_of_their_class_are_found(images):
    wanted = Request("at", typed(images), protocol="smoke").task(images / "images").source.test_images
    for path in (images / "images" / "val").glob("*.png"):
        (path.parent / path.name[:3]).mkdir(exist_ok=True)
        path.rename(path.parent / path.name[:3] / path.name)
    found = listed(images / "images", 8, *(str(images / f"lists/My_LT_{part}.txt") for part in ("train", "test")))
    assert (found.test_images == wanted).all()


@pytest.mark.parametrize(
    ("part", "line", "said"),
    [
        ("train", "train/ant/none.png 0", "1 of 16 images of .* are not in .*none.png; name the folder"),
        ("train", "train/ant/ant_0.png", "line 16: .* is not `relative/path label`"),
        ("train", "train/ant/ant_0.png -1", "line 16: .* is not `relative/path label`"),
        ("train", "../x.png 0", "not below the folder of the images"),
        ("train", "/x.png 0", "not below the folder of the images"),
        ("test", "val/ant_0.png 3", "train.txt has no image of 1 of 4 classes, the first: 3"),
    ],
)
def test_what_is_no_list_is_one_line(images, part, line, said):
    path = images / "lists" / f"My_LT_{part}.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(LTBenchError, match=said):
        Request("at", typed(images), protocol="smoke").task(images / "images")


def test_what_cannot_be_named_is_one_line(images):
    for dataset, said in (
        ("lists:train.txt", "lists: needs two"),
        (f"lists:{images}/none.txt,{images}/none.txt", "there is no list"),
        (typed(images, 4), "images of 4 pixels are not supported"),
        ("lists-my_lt_train-8px", "is named by them: --dataset lists:TRAIN,TEST@224"),
    ):
        with pytest.raises(LTBenchError, match=said):
            Request("at", dataset, protocol="smoke").task(images / "images")


def test_an_image_in_both_lists_is_said(images):
    path = images / "lists" / "My_LT_test.txt"
    path.write_text(path.read_text() + "train/ant/ant_0.png 0\n")
    (warning,) = Request("at", typed(images), protocol="smoke").task(images / "images").source.warnings
    assert warning.startswith("1 images are in both lists, the first: train/ant/ant_0.png")


def test_published_lists_are_compared_with_what_is_known(images, monkeypatch):
    names = [str(images / f"lists/My_LT_{part}.txt") for part in ("train", "test")]
    digest = hashlib.sha256(Path(names[0]).read_bytes()).hexdigest()

    def read(**known):
        facts = {"train": 15, "test": 6, "classes": 3, "extremes": (9, 2), "sha256": (digest, "us"), **known}
        monkeypatch.setitem(PUBLISHED, "mine", Published(**facts))
        return listed(images / "images", 8, *names, "mine")

    same = read()
    assert same.sha256 and "is the published list (us)" in same.notes[0] and not same.warnings
    other = read(sha256=("0" * 64, "them"))
    assert other.sha256 == same.sha256 and "published is 000000000000 (them)" in other.warnings[0]
    unknown = read(sha256=None)
    assert "nobody's digest of its lists is known here" in unknown.notes[0]
    with pytest.raises(LTBenchError, match=r"are not the lists of mine: they have 15 .* published are 16"):
        read(train=16)
    imagenet = PUBLISHED["imagenet-lt"]
    assert (imagenet.train, imagenet.classes, imagenet.extremes) == (115_846, 1000, (1280, 5))


def test_large_images_have_a_protocol_of_their_own():
    protocol = load_protocol("ltr-linf-large-v0")
    terms = protocol.terms("imagenet-lt")
    assert (terms.epsilon, terms.profile, protocol.test_images("imagenet-lt")) == ("4/255", "own", 5)
    recipe = protocol.training
    assert recipe.optimizer.kind == "adamw" and recipe.schedule.kind == "cosine" and recipe.schedule.warmup_epochs == 10
    assert protocol.terms("lists-x-224px") == protocol.terms("folder-x-224px")
    with pytest.raises(LTBenchError, match=r"imagenet-lt: there is no folder|needs a data folder"):
        make_plan("at", "imagenet-lt")


def test_files_are_like_the_array_they_would_be(images):
    paths = sorted(str(path) for path in (images / "images").rglob("*.png"))
    files = Files(paths, 8)
    assert files.shape == (21, 3, 8, 8) and files[np.arange(0)].shape == (0, 3, 8, 8)
    assert (files.of(np.array([3, 1]))[np.array([1])] == files[np.array([1])]).all()


def test_a_run_remembers_its_lists(images, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lists, "HELD", 1000)
    small = {"protocol": "smoke", "epochs": 1, "model": "small", "results_dir": None, "device": "cpu"}
    record = lt.run("at", typed(images), data_dir=images / "images", **small)
    (folder,) = Path("runs").iterdir()
    loaded = lt.load_model(folder)
    assert loaded.task().source.sha256 == record.run.source_sha256 is not None
    ltbench.main(["data", "info", typed(images), "--data-dir", str(images / "images")], standalone_mode=False)
    assert "3 classes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_transformer_at_224_pixels(tmp_path, monkeypatch):
    """ltr-linf-large-v0 on a few crafted images, with a transformer of tests' size: AdamW, warm-up, 4/255, in parts."""
    monkeypatch.setattr(lists, "HELD", 1000)
    lines = {"train": [], "test": []}
    for label in range(2):
        for i in range(8):
            picture(tmp_path / f"{label}/{i}.jpg", 10 * label + i, (260, 240))
            lines["train" if i < 6 else "test"].append(f"{label}/{i}.jpg {label}")
    for part, own in lines.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(own))
    plan = make_plan(
        "at-bsl", f"lists:{tmp_path}/train.txt,{tmp_path}/test.txt", protocol="ltr-linf-large-v0",
        model="timm:test_vit", epochs=1, settings={"batch_size": 8, "accumulate": 2}, data_dir=tmp_path,
    )  # fmt: skip
    assert plan.run.epsilon == 4 / 255 and plan.task.source.streams
    result = lt.train(
        "at-bsl", f"lists:{tmp_path}/train.txt,{tmp_path}/test.txt", protocol="ltr-linf-large-v0",
        model="timm:test_vit", epochs=1, settings={"batch_size": 8, "accumulate": 2}, data_dir=tmp_path,
        runs_dir=tmp_path / "runs", device="cpu",
    )  # fmt: skip
    assert np.isfinite(result.history[-1]["loss"])
