"""Data sets that are folders of image files, the permuted order, and the balanced references."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ltrobust_bench.data.registry import dataset_spec, locate
from ltrobust_bench.data.sources import load_source
from ltrobust_bench.data.split import long_tailed_counts, make_split
from ltrobust_bench.errors import DataError, UnknownNameError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.scores.groups import by_size


def images(root, counts, size=(40, 50), suffix="png", seed=0):
    """A folder of distinct images: a subfolder per class."""
    generator = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03d}.{suffix}")
    return root


COUNTS = {"cat": 40, "Bird of prey": 11, "dog": 20}


def test_a_folder_keeps_its_own_imbalance_and_holds_out_a_balanced_fifth_of_the_smallest_class(tmp_path):
    root = images(tmp_path / "My Photos", COUNTS)
    task = make_task(f"folder:{root}")
    assert task.spec.name == "folder-my-photos-32px" and task.classes == 3
    assert task.source.class_names == ("Bird of prey", "cat", "dog")
    assert task.split.test_counts == [2, 2, 2]
    assert task.split.train_counts == [9, 38, 18]
    assert (task.profile, task.imbalance_ratio) == ("own", round(38 / 9, 2))
    assert task.source.train_images.shape == (65, 3, 32, 32)
    train = {image.tobytes() for image in task.source.train_images}
    assert not any(image.tobytes() in train for image in task.source.test_images)
    assert by_size(task.split.train_counts).tolist() == [1, 2, 0]


def test_train_and_test_folders_are_taken_as_they_are(tmp_path):
    images(tmp_path / "train", COUNTS)
    images(tmp_path / "test", dict.fromkeys(COUNTS, 4), seed=1)
    task = make_task(f"folder:{tmp_path}@16")
    assert task.split.train_counts == [11, 40, 20] and task.split.test_counts == [4, 4, 4]
    assert task.spec.shape == (3, 16, 16) == task.source.test_images.shape[1:]


def test_the_usual_profiles_can_be_cut_from_a_folder(tmp_path):
    root = images(tmp_path / "photos", {"a": 20, "b": 20, "c": 20})
    assert make_task(f"folder:{root}", imbalance_ratio=4).split.train_counts == long_tailed_counts(16, 3, 4)
    with pytest.raises(UsageError, match="own keeps the data set's own imbalance"):
        make_task(f"folder:{root}", imbalance_ratio=4, profile="own")
    with pytest.raises(UsageError, match="needs an imbalance ratio"):
        make_task(f"folder:{root}", profile="step")


def test_two_folders_of_one_name_are_two_data_sets(tmp_path):
    one = images(tmp_path / "x" / "photos", COUNTS)
    other = images(tmp_path / "y" / "photos", COUNTS, seed=5)
    same = images(tmp_path / "z" / "photos", COUNTS)
    keys = [make_plan("at", f"folder:{root}", protocol="smoke").run for root in (one, other, same)]
    assert keys[0].dataset == keys[1].dataset and keys[0].key() != keys[1].key()
    assert keys[0].key() == keys[2].key(), "a moved folder is the same data set"
    assert keys[0].source_sha256 != keys[1].source_sha256


def test_scaling_keeps_the_middle_and_the_colours(tmp_path):
    for name, colour in {"a": (255, 0, 0), "b": (0, 0, 255)}.items():
        (tmp_path / name).mkdir()
        for i in range(5):
            picture = Image.new("RGB", (90, 30), colour)
            picture.paste((0, 255, 0), (0, 0, 30, 30))
            picture.paste((0, 255, 0), (60, 0, 90, 30))
            picture.save(tmp_path / name / f"{i}.bmp")
    source = load_source(*locate(f"folder:{tmp_path}@8", None))
    first, last = (source.train_images[i][:, :, 1:-1] for i in (0, -1))  # scaling mixes the outermost columns
    assert (first == np.array([255, 0, 0])[:, None, None]).all() and (last[2] == 255).all()


def test_names_and_sizes(tmp_path):
    assert locate("folder:some/dir@64", None)[0].shape == (3, 64, 64)
    assert locate("folder:me@home/dir", None)[1].as_posix() == "me@home/dir"
    assert dataset_spec("folder-dir-64px").shape == (3, 64, 64)
    for odd in ("a@²", f"a@{'9' * 5000}"):
        spec, place = locate(f"folder:{odd}", None)
        assert place.as_posix() == odd and spec.shape == (3, 32, 32)
        with pytest.raises(DataError, match="there is no folder"):
            load_source(spec, place)
    (tmp_path / "a.zip").write_bytes(b"")
    refused = {
        f"folder:{tmp_path / 'a.zip'}": "pass it as --data-dir",
        "folder:": "needs a path",
        "folder:x@4": "4 pixels",
        "folder:x@9999": "9999 pixels",
    }
    for name, says in refused.items():
        with pytest.raises(UsageError, match=says):
            locate(name, None)
    for name in ("tiny-imagenet", f"folder-x-{'9' * 5000}px"):
        with pytest.raises(UnknownNameError):
            locate(name, None)


def test_bad_folders_are_one_line(tmp_path):
    def refused(root):
        with pytest.raises(DataError) as refusal:
            make_task(f"folder:{root}")
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    assert "there is no folder" in refused(tmp_path / "nowhere")
    assert "0 class folders" in refused(tmp_path)
    root = images(tmp_path / "one", {"a": 3})
    assert "1 class folders" in refused(root)
    (root / "b").mkdir()
    assert "b holds no image" in refused(root)
    images(tmp_path / "single", {"a": 3, "b": 1})
    assert "class 'b'" in refused(tmp_path / "single")
    broken = images(tmp_path / "broken", {"a": 3, "b": 3})
    (broken / "b" / "000.png").write_bytes(b"\x89PNG\r\n")
    assert "000.png cannot be read" in refused(broken)
    images(tmp_path / "both" / "train", {"a": 3, "b": 3})
    images(tmp_path / "both" / "test", {"a": 3, "c": 3})
    assert "same class folders" in refused(tmp_path / "both")


@pytest.mark.parametrize("parts", [("train", "val"), ("Train", "Test"), ("training", "valid")])
def test_parts_of_the_data_are_not_taken_for_classes(tmp_path, parts):
    for part in parts:
        images(tmp_path / part, {"a": 4, "b": 4})
    with pytest.raises(DataError, match="name the parts of the data train/ and test/"):
        make_task(f"folder:{tmp_path}")


def test_links_that_repeat_images_are_refused(tmp_path):
    root = images(tmp_path / "photos", {"a": 4, "b": 4})
    (root / "a" / "self").symlink_to(root / "a")
    with pytest.raises(DataError, match="links that repeat"):
        make_task(f"folder:{root}")


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_deep_images_are_refused_not_clipped(tmp_path, mode):
    root = images(tmp_path / "photos", {"a": 4, "b": 4})
    kind, suffix = (np.uint16, "png") if mode == "I;16" else (np.float32, "tiff")
    Image.fromarray(np.full((9, 9), 1000, dtype=kind)).save(root / "a" / f"deep.{suffix}")
    with pytest.raises(DataError, match="more than 8 bits"):
        make_task(f"folder:{root}")


def test_a_class_order_names_every_label_once():
    labels = np.repeat(np.arange(4), 10)
    for order in ([1, 0], [0, 0, 1, 2], [0, 1, 2, 4]):
        with pytest.raises(UsageError, match="each of 4 labels once"):
            make_split(labels, labels, 2, class_order=order)


def tiny_imagenet(root, classes=200, train=2):
    """The tree as distributed, with tiny numbers of images; some are grey, as in the original."""
    root = root / "tiny-imagenet-200"
    ids = [f"n{i:08d}" for i in range(classes)]
    root.mkdir()
    (root / "wnids.txt").write_text("\n".join(reversed(ids)) + "\n")
    (root / "words.txt").write_text("".join(f"{i}\tthing {i}, other name\n" for i in ids))
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for n, i in enumerate(ids):
        (root / "train" / i / "images").mkdir(parents=True)
        for k in range(train):
            Image.new("L" if k else "RGB", (64, 64), n if k else (n, n, n)).save(
                root / "train" / i / "images" / f"{i}_{k}.JPEG"
            )
        Image.new("RGB", (64, 64), (n, n, n)).save(root / "val" / "images" / f"val_{classes - n}.JPEG")
        lines.append(f"val_{classes - n}.JPEG\t{i}\t0\t0\t62\t62")
    (root / "val" / "val_annotations.txt").write_text("\n".join(sorted(lines)) + "\n")


def test_tiny_imagenet_is_read_as_distributed(tmp_path):
    tiny_imagenet(tmp_path)
    source = load_source(dataset_spec("tiny-imagenet-lt"), tmp_path)
    assert source.train_images.shape == (400, 3, 64, 64) and source.test_images.shape == (200, 3, 64, 64)
    assert source.class_names[3] == "thing n00000003"
    for part in (source.train_images, source.test_images):
        labels = source.train_labels if len(part) == 400 else source.test_labels
        assert np.abs(part.mean((1, 2, 3)) - labels).max() < 2, "each image is as bright as its class"


def test_tiny_imagenet_says_how_to_get_it(tmp_path):
    for where in (None, tmp_path):
        with pytest.raises(DataError, match=r"http://cs231n.stanford.edu/tiny-imagenet-200.zip .* unzip"):
            load_source(dataset_spec("tiny-imagenet-lt"), where)
    # methods.md 10.1: 39072 images in all at IR 10.
    assert sum(long_tailed_counts(500, 200, 10)) == 39072


def test_the_permuted_order_gives_the_same_sizes_to_other_classes():
    terms = load_protocol("ltr-linf-v1").terms("cifar10-lt-perm")
    labels = np.repeat(np.arange(10), 100)
    plain, permuted = (make_split(labels, labels, 50, class_order=order) for order in (None, terms.class_order))
    assert by_size(permuted.train_counts).tolist() == terms.class_order
    assert sorted(permuted.train_counts) == sorted(plain.train_counts)
    for label in range(10):
        ours, theirs = (set(s.train[labels[s.train] == label].tolist()) for s in (plain, permuted))
        assert ours <= theirs or theirs <= ours, "each class's draw is the same, cut at another place"


def test_balanced_references_keep_the_total():
    labels = np.repeat(np.arange(10), 5000)
    tailed, balanced = (make_split(labels, labels[:100], 50, profile) for profile in ("exp", "balanced"))
    assert balanced.train_counts == [sum(tailed.train_counts) // 10] * 10 == [1399] * 10
    full = make_split(labels, labels[:100], 1)
    assert full.train_counts == [5000] * 10


def test_a_frozen_protocol_can_gain_a_data_set():
    protocol = load_protocol("ltr-linf-v1")
    fewer = protocol.model_copy(update={"datasets": {"cifar10-lt": protocol.datasets["cifar10-lt"]}})
    assert fewer.digest("cifar10-lt") == protocol.digest("cifar10-lt") != protocol.digest("cifar10-lt-perm")
    changed = protocol.datasets["cifar10-lt"].model_copy(update={"imbalance_ratio": 51.0})
    other = protocol.model_copy(update={"datasets": {"cifar10-lt": changed}})
    assert other.digest("cifar10-lt") != protocol.digest("cifar10-lt")
    assert protocol.digest("folder-a-32px") == protocol.digest("folder-b-64px")
    with pytest.raises(UsageError, match="says nothing about digits-lt"):
        protocol.digest("digits-lt")
