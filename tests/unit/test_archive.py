"""Portable archives: without loss, the same digests, and nothing taken on trust."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from ltrobust_bench.data import archive
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.data.sources import Source, load_source
from ltrobust_bench.data.split import make_split
from ltrobust_bench.errors import DataError
from ltrobust_bench.plan.make import make_plan


def source_of(shape=(3, 5, 7), per_class=30, classes=4, seed=0) -> Source:
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    images = generator.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
    return Source(images, labels, images[::3], labels[::3], tuple("abcdefgh"[:classes]))


@pytest.fixture
def packed(tmp_path):
    source = source_of()
    split = make_split(source.train_labels, source.test_labels, 5)
    path = tmp_path / "some.zip"
    archive.write(path, "some", source, split, imbalance_ratio=5, profile="exp")
    return path, source, split


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 8, 8), (3, 1, 1), (3, 500, 512)])
@pytest.mark.parametrize("per_class", [1, 13])
def test_images_come_back_bit_for_bit(tmp_path, shape, per_class):
    if shape[1] == 500 and per_class > 1:
        pytest.skip("one large shape is enough")
    source = source_of(shape, per_class)
    split = make_split(source.train_labels, source.test_labels, 1)
    archive.write(tmp_path / "a.zip", "some", source, split, imbalance_ratio=1, profile="exp")
    back = archive.read(tmp_path / "a.zip", "some")
    assert (back.train_pixels(split.train) == source.train_images[split.train]).all()
    assert (back.test_images == source.test_images).all()
    assert (back.train_labels == source.train_labels).all() and (back.test_labels == source.test_labels).all()
    assert back.class_names == source.class_names
    assert archive.verify(tmp_path / "a.zip").train_index_sha256 == split.train_sha256


def test_more_images_than_a_mosaic_holds(tmp_path):
    source = source_of((1, 2, 2), per_class=250)
    split = make_split(source.train_labels, source.test_labels, 1)
    manifest = archive.write(tmp_path / "a.zip", "some", source, split, imbalance_ratio=1, profile="exp")
    assert [n for _, n in manifest.mosaics("train")] == [400, 400, 200]
    assert (archive.read(tmp_path / "a.zip").train_images == source.train_images).all()


def test_only_the_split_is_held_and_its_tails_too(packed):
    path, source, split = packed
    back = archive.read(path, "some")
    assert len(back.train_images) == len(split.train) < len(source.train_images)
    steeper = make_split(back.train_labels, back.test_labels, 10)
    assert (back.train_pixels(steeper.train) == source.train_images[steeper.train]).all()
    flatter = make_split(back.train_labels, back.test_labels, 2)
    with pytest.raises(DataError, match=f"lacks .* of the {len(flatter.train)} that this split needs"):
        back.train_pixels(flatter.train)


def test_packing_twice_gives_the_same_bytes(packed, tmp_path):
    path, source, split = packed
    archive.write(tmp_path / "again.zip", "some", source, split, imbalance_ratio=5, profile="exp")
    assert path.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_another_data_set_is_refused(packed):
    with pytest.raises(DataError, match="holds some, not other"):
        archive.read(packed[0], "other")


def rewritten(path, change=None, extra=(), compression=zipfile.ZIP_STORED, manifest=None, drop=()):
    """The archive with some members changed."""
    with zipfile.ZipFile(path) as old:
        members = [(i.filename, old.read(i)) for i in old.infolist() if i.filename not in drop]
    target = path.with_name("bad.zip")
    with zipfile.ZipFile(target, "w", compression) as new:
        for name, blob in members:
            if name == "manifest.json" and manifest:
                stated = json.loads(blob)
                manifest(stated)
                blob = json.dumps(stated).encode()
            new.writestr(name, (change or {}).get(name, blob))
        for name, blob in extra:
            new.writestr(name, blob)
    return target


def set_field(name, value):
    return lambda stated: stated.update({name: value})


HOSTILE = {
    "absolute path": ({"extra": [("/etc/passwd", b"x")]}, "other members"),
    "parent folder": ({"extra": [("../../evil", b"x")]}, "other members"),
    "one file more": ({"extra": [("train-99999.webp", b"x")]}, "other members"),
    "one file less": ({"drop": ["test-00000.webp"]}, "other members"),
    "compressed": ({"compression": zipfile.ZIP_DEFLATED, "extra": [("bomb", bytes(10**7))]}, "compressed"),
    "other pixels": ({"change": {"test-00000.webp": b"RIFF"}}, "not what the manifest says"),
    "other labels": ({"change": {"train-labels.bin": bytes(240)}}, "not what the manifest says"),
    "a huge count": ({"manifest": set_field("train_images", 10**7)}, "other members"),
    "an endless count": ({"manifest": set_field("train_images", 10**30)}, "train_images"),
    "another shape": ({"manifest": set_field("shape", [3, 7, 5])}, "pixels"),
    "huge images": ({"manifest": set_field("shape", [3, 10**6, 10**6])}, "shape"),
    "fewer classes": ({"manifest": set_field("class_names", ["a", "b"])}, "beyond its 2 classes"),
    "another format": ({"manifest": set_field("version", 2)}, "version"),
    "an unknown field": ({"manifest": set_field("run", "rm")}, "run"),
    "another ratio": ({"manifest": set_field("imbalance_ratio", 999)}, "not those of imbalance ratio 999"),
    "another profile": ({"manifest": set_field("profile", "step")}, "not those of imbalance ratio 5, profile step"),
    "control characters": ({"manifest": set_field("a\nb\x1b[2J", 1)}, r"a\\nb\\x1b\[2J"),
    "escapes in a name": ({"manifest": set_field("made_by", "x\x1b[2J\ny")}, "made_by"),
    "a long text": ({"manifest": set_field("profile", "x" * 10**6)}, "profile"),
    "a folder that says not which": ({"manifest": set_field("dataset", "folder-a-8px")}, "without the digest"),
    "no manifest": ({"drop": ["manifest.json"]}, "manifest.json"),
    "a manifest that is no JSON": ({"change": {"manifest.json": b"\xff{"}}, "manifest.json"),
    "other pixels stated": ({"manifest": set_field("pixels_sha256", "0" * 64)}, "not those that were packed"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused(packed, case):
    change, says = HOSTILE[case]
    bad = rewritten(packed[0], **change)
    with pytest.raises(DataError, match=says) as refusal:
        archive.verify(bad)
    message = str(refusal.value)
    assert message.isprintable() and str(bad) in message and len(message) < 600


def test_links_and_doubled_members_are_refused(packed):
    path = packed[0]
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="other members"):
        archive.read(path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("link", b"x")
    with pytest.raises(DataError, match="there twice"):
        archive.read(path)


def test_a_webp_that_unfolds_is_refused_before_it_is_decoded(packed, monkeypatch):
    """A mosaic of another size, with a manifest that vouches for it."""
    import hashlib
    import io

    from PIL import Image

    memory = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(memory, "WEBP", lossless=True, method=0)
    blob = memory.getvalue()

    def vouch(stated):
        stated["members"]["test-00000.webp"] = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}

    bad = rewritten(packed[0], change={"test-00000.webp": blob}, manifest=vouch)
    decoded = []
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: decoded.append(self.size) or self)
    with pytest.raises(DataError):
        archive.read(bad)
    assert (6000, 6000) not in decoded


def test_a_small_file_that_unfolds_into_very_many_pixels_is_refused(packed, monkeypatch):
    monkeypatch.setattr(archive, "FREE", 1000)
    monkeypatch.setattr(archive, "UNFOLDS", 0.1)
    with pytest.raises(DataError, match="would unfold into"):
        archive.read(rewritten(packed[0], manifest=set_field("made_by", "someone")))


def test_a_zip_of_another_version_is_one_line(packed):
    damaged = bytearray(packed[0].read_bytes())
    damaged[damaged.find(b"PK\x01\x02") + 6] = 99
    packed[0].write_bytes(damaged)
    with pytest.raises(DataError, match="not a zip file"):
        archive.verify(packed[0])


def test_verify_reads_the_file_whatever_was_read_before(packed):
    import os

    path = packed[0]
    archive.read(path)
    before, damaged = path.stat(), bytearray(path.read_bytes())
    damaged[damaged.find(b"RIFF") + 40] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError):
        archive.verify(path)


def test_what_cannot_be_packed_is_one_line(packed, tmp_path):
    from dataclasses import replace

    from ltrobust_bench.errors import UsageError

    _, source, split = packed
    odd = replace(source, class_names=("a" * 300, "b", "c", "d"))
    with pytest.raises(UsageError, match="cannot be packed: class_names"):
        archive.write(tmp_path / "odd.zip", "some", odd, split, imbalance_ratio=5, profile="exp")
    assert not (tmp_path / "odd.zip").exists()


def test_mosaics_stay_below_what_pillow_warns_of():
    for side in (8, 32, 64, 300, 512):
        per = archive._per_mosaic((3, side, side))
        columns, rows = archive._layout(per, (3, side, side))
        assert per >= 1 and columns * rows * side * side <= 80_000_000 and max(columns, rows) * side <= 16383


def test_every_damaged_byte_is_noticed(packed):
    """Flipping any byte of the payload, or cutting the file anywhere, is refused (or hits nothing that is read)."""
    path, source, _ = packed
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    bad = path.with_name("bad.zip")
    for place in generator.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        bad.write_bytes(damaged)
        try:
            back = archive.read(bad)
        except DataError:
            continue
        assert (back.test_images == source.test_images).all(), "damage that passes must be in unused zip fields"
        assert (back.train_images == archive.read(path).train_images).all()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:size])
        with pytest.raises(DataError, match="not a zip file|damaged"):
            archive.read(bad)


def test_embedded_data_sets_can_be_packed_and_ignore_other_archives(packed, tmp_path):
    folder = make_plan("at", "digits-lt")
    path = tmp_path / "digits.zip"
    archive.write(path, "digits-lt", folder.task.source, folder.task.split, imbalance_ratio=20, profile="exp")
    from_archive = make_plan("at", "digits-lt", data_dir=path)
    assert from_archive.run.key() == folder.run.key()
    assert from_archive.task.source.held is not None
    assert make_plan("at", "digits-lt", data_dir=packed[0]).task.source.held is None
    with pytest.raises(DataError, match="lacks"):
        make_plan("at", "digits-lt", data_dir=path, imbalance_ratio=2)


@pytest.mark.slow
def test_real_cifar100_goes_through_an_archive(cifar100_folder, tmp_path):
    """The training images of the ratio that has fewest, and the test images of all classes."""
    spec = dataset_spec("cifar100-lt")
    source = load_source(spec, cifar100_folder)
    split = make_split(source.train_labels, source.test_labels, 100)
    path = tmp_path / "cifar100-lt-ir100.zip"
    archive.write(path, spec.name, source, split, imbalance_ratio=100, profile="exp")
    back = load_source(spec, path)
    assert back.class_names == source.class_names and len(back.class_names) == 100
    assert make_split(back.train_labels, back.test_labels, 100).train_sha256 == split.train_sha256
    assert (back.train_pixels(split.train) == source.train_images[split.train]).all()
    assert (back.test_images == source.test_images).all()


@pytest.mark.slow  # a command of the README packs it, too
def test_real_cifar10_in_under_45_megabytes(cifar10_folder, tmp_path):
    spec = dataset_spec("cifar10-lt")
    source = load_source(spec, cifar10_folder)
    split = make_split(source.train_labels, source.test_labels, 50)
    path = tmp_path / "cifar10-lt-ir50.zip"
    archive.write(path, spec.name, source, split, imbalance_ratio=50, profile="exp")
    assert path.stat().st_size < 45e6
    back = load_source(spec, path)
    for ratio in (50, 100):
        own = make_split(back.train_labels, back.test_labels, ratio)
        assert own.train_sha256 == make_split(source.train_labels, source.test_labels, ratio).train_sha256
        assert (back.train_pixels(own.train) == source.train_images[own.train]).all()
    assert (back.test_images == source.test_images).all()


@pytest.fixture
def part(tmp_path):
    """An archive with 8 of 40 test images, 2 of each class."""
    source = source_of()
    split = make_split(source.train_labels, source.test_labels, 5, limit_test=8)
    path = tmp_path / "part.zip"
    archive.write(path, "some", source, split, imbalance_ratio=5, profile="exp", tested=split.test)
    return path, source, split


def test_a_part_of_the_test_set(part, packed):
    path, source, split = part
    back = archive.read(path, "some")
    assert len(back.test_images) == 8 and path.stat().st_size < packed[0].stat().st_size
    assert (back.test_pixels(split.test) == source.test_images[split.test]).all()
    # The split is cut from all labels, so every digest is the data set's.
    again = make_split(back.train_labels, back.test_labels, 5, limit_test=4)
    assert again.test_sha256 == make_split(source.train_labels, source.test_labels, 5, limit_test=4).test_sha256
    assert (back.test_pixels(again.test) == source.test_images[again.test]).all()
    more = make_split(back.train_labels, back.test_labels, 5, limit_test=12)
    with pytest.raises(DataError, match="holds 8 test images and lacks 4 of the 12 that are to be tested; add --limit"):
        back.test_pixels(more.test)
    manifest, whole = archive.verify(path), archive.verify(packed[0])
    assert manifest.test_index_sha256 == split.test_sha256 and manifest.pixels_sha256 != whole.pixels_sha256
    assert (manifest.version, whole.version, whole.test_index_sha256) == (2, 1, None)


def test_a_part_that_is_the_whole_is_packed_as_ever(packed, tmp_path):
    path, source, split = packed
    terms = {"imbalance_ratio": 5, "profile": "exp"}
    archive.write(tmp_path / "all.zip", "some", source, split, **terms, tested=split.test)
    assert path.read_bytes() == (tmp_path / "all.zip").read_bytes()


HOSTILE_PARTS = {
    "another digest": ({"manifest": set_field("test_index_sha256", "0" * 64)}, "other test images"),
    "more images than labels": ({"manifest": set_field("test_labels", 4)}, "does not hold 4 numbers"),
    "said to be whole": ({"manifest": set_field("version", 1)}, "version 2, and no other"),
    "no digest": ({"manifest": set_field("test_index_sha256", None)}, "version 2, and no other"),
    "other places": ({"change": {"test-held.bin": bytes(32)}}, "not what the manifest says"),
    "no places": ({"drop": ["test-held.bin"]}, "other members"),
}


@pytest.mark.parametrize("case", HOSTILE_PARTS)
def test_hostile_parts_are_refused(part, case):
    change, says = HOSTILE_PARTS[case]
    with pytest.raises(DataError, match=says):
        archive.verify(rewritten(part[0], **change))
