"""Data sets that are folders of image files, the permuted order, and the balanced references."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ltrobust_bench.data import folders
from ltrobust_bench.data.copies import near
from ltrobust_bench.data.pixels import pixels_of
from ltrobust_bench.data.registry import cuts_of, dataset_spec, locate
from ltrobust_bench.data.sources import data_place, load_source
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


def test_the_same_words_elsewhere_are_another_folder(tmp_path, monkeypatch):
    """What was read is remembered, by where it is and not by what was typed."""
    for n, place in enumerate((tmp_path / "x", tmp_path / "y")):
        images(place / "photos", COUNTS, seed=n)
        monkeypatch.chdir(place)
        assert make_task("folder:photos").source.sha256 == make_task(f"folder:{place / 'photos'}").source.sha256


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


def test_bad_folders_are_one_line(tmp_path, monkeypatch):
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
    for i in range(1, 3):
        (broken / "a" / f"00{i}.png").write_bytes(b"")
        Image.fromarray(np.zeros((9, 9), dtype=np.uint16)).save(broken / "b" / f"00{i}.png")
    said = refused(broken)
    assert "001.png cannot be read" in said and "Refused as well, 4: " in said, "nobody learns of them one by one"
    assert all(str(path) in said for path in broken.rglob("*.png") if path != broken / "a" / "000.png")
    monkeypatch.setattr(folders, "NAMED", 2)
    assert refused(broken).endswith("000.png and 2 others.")
    images(tmp_path / "both" / "train", {"a": 3, "b": 3})
    images(tmp_path / "both" / "test", {"a": 3, "c": 3})
    assert "same class folders" in refused(tmp_path / "both")


@pytest.mark.parametrize(
    "parts", [("train", "val"), ("Train", "Test"), ("training", "valid"), ("train", "test", "val")]
)
def test_parts_of_the_data_are_taken_as_such_in_any_spelling(tmp_path, parts):
    for seed, part in enumerate(parts):
        images(tmp_path / part, {"a": 4 + seed, "b": 4 + seed}, seed=seed)
    source = make_task(f"folder:{tmp_path}").source
    assert np.bincount(source.train_labels).tolist() == [4, 4] and np.bincount(source.test_labels).tolist() == [5, 5]
    unused = "; val/ is not used" if len(parts) == 3 else ""
    assert source.notes[0] == f"2 classes in {tmp_path}: trained on {parts[0]}/, tested on {parts[1]}/{unused}"


def test_a_training_folder_alone_is_cut_and_says_what_lies_beside_it(tmp_path):
    images(tmp_path / "train", {"a": 10, "b": 5})
    alone = make_task(f"folder:{tmp_path}").source
    assert "1 images of each class (a fifth of the smallest) are the test set, the rest of train/" in alone.notes[0]
    images(tmp_path / "test", {"a": 1, "b": 1}, seed=1)
    deeper = make_task(f"folder:{tmp_path / 'train'}").source
    assert len(deeper.test_labels) == 2 and f"test/ lies beside it: {tmp_path} takes both" in deeper.notes[0]


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (["train", "cats", "dogs"], "name the parts of the data train/ and test/"),
        (["test", "val"], "has test/, val/ and no train/"),
        (["train", "Training"], "has both"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, folders, says):
    for folder in folders:
        images(tmp_path / folder, {"a": 4, "b": 4})
    with pytest.raises(DataError, match=says):
        make_task(f"folder:{tmp_path}")


def test_what_people_do_not_mean_is_passed_over_and_counted(tmp_path):
    root = images(tmp_path / "photos", {"a": 10, "b": 10})
    plain = make_task(f"folder:{root}").source
    other = images(tmp_path / "other" / "photos", {"a": 10, "b": 10})
    images(other, {".git": 3, "__MACOSX": 3, "a/.ipynb_checkpoints": 3, "b/__MACOSX": 3}, seed=1)
    for name in ("notes.txt", "x.png", "a/._000.png", "a/Thumbs.db", "a/1.heic", "b/2.HEIC"):
        (other / name).write_bytes(b"")
    source = make_task(f"folder:{other}").source
    assert source.sha256 == plain.sha256, "hidden files and systems' folders are no images"
    assert "4 files were left out: 2 .heic, 1 .db, 1 in no class folder" in source.notes
    assert source.warnings[0].endswith("which changes the classes' sizes: 2 .heic")
    assert len(plain.notes) == 2 and ".heic" not in plain.warnings[0]


def test_gifs_are_read(tmp_path):
    root = images(tmp_path, {"a": 4, "b": 10})
    for i in range(6):
        frames = [Image.new("RGB", (20, 20), (40 * i, 255, 0)), Image.new("RGB", (20, 20))]
        frames[0].save(root / "a" / f"{i}.gif", save_all=True, append_images=frames[1:])
    source = make_task(f"folder:{root}").source
    assert np.bincount(source.train_labels).tolist() == [8, 8], "ten pictures each, two of them to be tested on"
    assert {tuple(image[:, 5, 5]) for image in source.train_images} >= {(40 * i, 255, 0) for i in (0, 5)} - {
        tuple(image[:, 5, 5]) for image in source.test_images
    }


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGBA", (200, 10, 30, 0), (255, 255, 255)),
        ("RGBA", (200, 10, 30, 51), (244, 206, 210)),  # 255 + 51 / 255 (200 - 255), and so on
        ("RGBA", (200, 10, 30, 255), (200, 10, 30)),
        ("LA", (0, 51), (204, 204, 204)),
        ("P", 3, (255, 255, 255)),
    ],
)
def test_a_picture_that_is_partly_transparent_is_laid_on_white_and_counted(tmp_path, mode, colour, seen):
    root = images(tmp_path, {"a": 9, "b": 10}, size=(16, 16))
    picture = Image.new(mode, (16, 16), colour)
    if mode == "P":
        picture.putpalette([7] * 768)
        picture.info["transparency"] = 3
    picture.save(root / "a" / "seen.png")
    source = make_task(f"folder:{root}@16").source
    every = [tuple(image[:, 5, 5]) for part in (source.train_images, source.test_images) for image in part]
    assert every.count(seen) == 1
    said = "" if colour == (200, 10, 30, 255) else "; 1 that are partly transparent are laid on white"
    assert source.notes[1] == f"images are 16x16 as they are{said}"
    assert tuple(pixels_of(root / "a" / "seen.png", (3, 16, 16))[0, :, 5, 5] * 255) == seen, "for a prediction, too"


def test_the_plan_says_what_was_done_to_the_size(tmp_path):
    images(tmp_path, {"a": 4}, size=(200, 300))
    images(tmp_path, {"b": 4}, size=(224, 224))
    images(tmp_path, {"c": 4}, size=(230, 240))
    said = {size: make_task(f"folder:{tmp_path}@{size}").source.notes[1] for size in (32, 64)}
    assert said[64] == "images scaled from 240x224 (median) to 64x64, the middle cut out"
    assert said[32] == "images scaled from 240x224 (median) to 32x32, the middle cut out; @64 keeps more of them"
    square = images(tmp_path / "square", {"a": 2, "b": 2}, size=(16, 16))
    assert make_task(f"folder:{square}@16").source.notes[1] == "images are 16x16 as they are"


def test_pictures_that_are_there_twice_are_told(tmp_path):
    images(tmp_path / "train", {"a": 30, "b": 30})
    images(tmp_path / "test", {"a": 20, "b": 20}, seed=1)
    assert make_task(f"folder:{tmp_path}@16").source.warnings == ()
    copied, saved_again, mislabelled = tmp_path / "train" / "a", tmp_path / "test" / "b", tmp_path / "train" / "b"
    (tmp_path / "test" / "a" / "copy.png").write_bytes((copied / "003.png").read_bytes())
    with Image.open(mislabelled / "007.png") as picture:
        picture.resize((100, 80)).save(saved_again / "again.jpg", quality=90)
    (mislabelled / "other.png").write_bytes((copied / "004.png").read_bytes())
    again = images(tmp_path / "z", {}) / "photos"  # a process reads each folder once
    again.parent.mkdir()
    for part in ("train", "test"):
        (tmp_path / part).rename(again.parent / part)
    labels, exact, alike = make_task(f"folder:{again.parent}@16").source.warnings
    assert labels.startswith("1 pictures lie in several classes")
    assert exact.startswith(
        "1 of 42 test images are training images too, byte for byte (the first: test/a/copy.png and "
    )
    assert "train/a/003.png" in exact
    assert alike.startswith(
        "1 of 42 test images look like a training image (the first: test/b/again.jpg and train/b/007"
    )


def test_nearly_equal_test_images_of_cifar10(cifar10_folder):
    """The data set has such pairs (Barz & Denzler, 2020, ciFAIR): two crops of one photograph are found, others not."""
    source = load_source(dataset_spec("cifar10-lt"), cifar10_folder)
    tested, trained = [506, 1103, 1513, 1712, *range(100)], [17129, 12009, 6451, 5657, *range(2000)]
    assert near(source.train_images[trained], source.test_images[tested]) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert (source.test_labels[tested[:4]] == source.train_labels[trained[:4]]).all()
    flat = np.full((3, 3, 16, 16), 200, dtype=np.uint8)
    assert near(flat, flat) == [], "pictures of one colour show nothing"
    assert near(source.train_images, source.test_images) is None, "too many pairs for a reader who waits"


def test_few_test_images_are_told_and_more_can_be_had(tmp_path):
    root = images(tmp_path / "photos", {"a": 50, "b": 12, "c": 30})
    few = make_task(f"folder:{root}").source.warnings
    assert few == (
        "each class has 2 test images, and one image is 50 points of its accuracy: test on more of each class with "
        "--test-share, or on all parts in turn with --folds",
    )
    more = make_task(f"folder:{root}@16-test50")
    assert more.split.test_counts == [6, 6, 6] and more.spec.name == "folder-photos-16px-test50"
    assert "6 images of each class (50% of the smallest)" in more.source.notes[0]
    with pytest.raises(UsageError, match="0.01 to 0.9"):
        make_task(f"folder:{root}@16-test95")


def test_folds_are_disjoint_and_the_first_fifth_is_the_usual_test_set(tmp_path):
    root = images(tmp_path / "photos", {"a": 50, "b": 12, "c": 30}, size=(8, 8))
    usual = make_task(f"folder:{root}@8").source
    folds = [make_task(f"folder:{root}@8-fold{i}of5").source for i in range(1, 6)]
    tested = [{image.tobytes() for image in source.test_images} for source in folds]
    assert [len(of) for of in tested] == [6] * 5 and len(set.union(*tested)) == 30
    assert tested[0] == {image.tobytes() for image in usual.test_images}
    for source, of in zip(folds, tested, strict=True):
        assert not of & {image.tobytes() for image in source.train_images}
        assert len(source.train_images) == 86
    assert len({source.sha256 for source in folds}) == 5, "each fold is a data set of its own"
    for cut, says in (
        ("fold13of13", "too few for 13 folds"),
        ("fold6of5", "no fold 6 of 5"),
        ("fold1of1", "two folds"),
    ):
        with pytest.raises((DataError, UsageError), match=says):
            make_task(f"folder:{root}@8-{cut}")
    images(tmp_path / "own" / "train", {"a": 4, "b": 4})
    images(tmp_path / "own" / "test", {"a": 4, "b": 4}, seed=1)
    with pytest.raises(DataError, match="has its own test images in test/"):
        make_task(f"folder:{tmp_path / 'own'}@8-fold1of2")


def test_options_for_the_test_set_are_for_folders():
    assert cuts_of("cifar10-lt", None, None) == ["cifar10-lt"]
    assert cuts_of("folder:x", 0.3, None) == ["folder:x@32-test30"]
    assert cuts_of("folder:x@64", None, 2) == ["folder:x@64-fold1of2", "folder:x@64-fold2of2"]
    for dataset, share, folds in (("cifar10-lt", 0.3, None), ("folder:x", 0.3, 2), ("folder:x@32-test30", 0.3, None)):
        with pytest.raises(UsageError):
            cuts_of(dataset, share, folds)


def test_folders_with_odd_names(tmp_path, monkeypatch):
    images(tmp_path / "photos@2024", {"a": 4, "b": 4})
    assert make_task(f"folder:{tmp_path / 'photos@2024'}").spec.name == "folder-photos-2024-32px"
    assert make_task(f"folder:{tmp_path / 'photos@2024'}@16").spec.shape == (3, 16, 16)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_task("folder:~/photos@2024").place == tmp_path / "photos@2024"


def test_a_folder_too_deep_or_too_high_is_told(tmp_path):
    images(tmp_path / "download" / "photos", {"a": 4, "b": 4})
    (tmp_path / "download" / "__MACOSX").mkdir()
    with pytest.raises(DataError, match=f"1 class folders.*{tmp_path / 'download' / 'photos'} has several"):
        make_task(f"folder:{tmp_path / 'download'}")
    with pytest.raises(DataError, match=f"directly: name the folder above, {tmp_path / 'download' / 'photos'}"):
        make_task(f"folder:{tmp_path / 'download' / 'photos' / 'a'}")
    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    fashion = dataset_spec("fashion-mnist-lt")
    for named in ("", "FashionMNIST", "FashionMNIST/raw"):
        assert data_place(fashion, tmp_path / named) == tmp_path
    same = tmp_path / "FashionMNIST" / "FashionMNIST"
    same.mkdir()
    assert data_place(fashion, same.parent) == same.parent, "it holds the tree itself"


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
