"""``ltbench data``."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import FAST, call, refused
from PIL import Image


def test_info_prints_counts_groups_and_digests(capsys):
    code, out, _ = call(capsys, "data", "info", "digits-lt", "--imbalance-ratio", 10, "--profile", "step")
    assert code == 0
    assert "imbalance ratio 10 (step)" in out and out.count("head") == 3 and out.count("tail") == 3
    assert len([w for w in out.split() if len(w) == 64]) == 3


def test_info_on_real_cifar10(capsys, cifar10_folder):
    code, out, _ = call(capsys, "data", "info", "cifar10-lt", "--imbalance-ratio", 50, "--data-dir", cifar10_folder)
    assert code == 0
    assert "13996 training images" in out
    assert "d7edcfaf02772bee1e2310a33be8b6c46232f043641158348b9de3ec731e26ac" in out
    assert "620184a2896675c834da5f030951948e3480f350a46537d6a4adc4451699def2" in out


def test_prepare_finds_what_is_there(capsys, cifar10_folder):
    code, out, _ = call(capsys, "data", "prepare", "cifar10-lt", "--data-dir", cifar10_folder)
    assert code == 0 and "is ready" in out
    assert "nothing to fetch" in call(capsys, "data", "prepare", "digits-lt", "--data-dir", "x")[1]


def test_prepare_that_cannot_download_is_one_line(capsys, tmp_path, monkeypatch):
    import torchvision

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    assert "no route to host" in refused(capsys, "data", "prepare", "cifar10-lt", "--data-dir", tmp_path / "data")


def test_wrong_folders(capsys, tmp_path):
    assert "ltbench data prepare" in refused(capsys, "data", "info", "cifar10-lt")
    assert "there is no folder" in refused(capsys, "data", "info", "cifar10-lt", "--data-dir", tmp_path / "x")
    assert "did you mean 'cifar10-lt'" in refused(capsys, "data", "info", "cifar10")
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert "missing or damaged" in refused(capsys, "data", "info", "cifar10-lt", "--data-dir", tmp_path)


def test_pack_verify_and_use(capsys, tmp_path):
    file = tmp_path / "digits.zip"
    code, out, _ = call(capsys, "data", "pack", "digits-lt", file, "--imbalance-ratio", 10)
    assert code == 0 and "500 test images" in out
    assert "exists already" in refused(capsys, "data", "pack", "digits-lt", file)
    assert call(capsys, "data", "pack", "digits-lt", file, "--force", "--imbalance-ratio", 20)[0] == 0
    code, out, _ = call(capsys, "data", "verify", file)
    assert code == 0 and "sound" in out and "imbalance ratio 20" in out
    plain, packed = (call(capsys, "data", "info", "digits-lt", *extra)[1] for extra in ([], ["--data-dir", file]))
    assert plain == packed
    options = ["--dataset", "digits-lt", "--data-dir", file, "--runs-dir", tmp_path / "runs"]
    assert "lacks" in refused(capsys, "train", "--method", "at", *options, "--imbalance-ratio", 5)
    assert "digits-lt, not cifar10-lt" in refused(capsys, "data", "info", "cifar10-lt", "--data-dir", file)
    file.write_bytes(file.read_bytes()[:-100])
    code, _, err = call(capsys, "data", "verify", file)
    assert code == 1 and err.count("\n") == 1 and "damaged" in err
    assert "there is no file" in refused(capsys, "data", "verify", tmp_path / "none.zip")


def test_a_pack_with_a_part_of_the_test_set(capsys, tmp_path):
    """It serves trainings and smaller evaluations; what it cannot finish is refused before it begins."""
    whole, part = tmp_path / "whole.zip", tmp_path / "part.zip"
    assert call(capsys, "data", "pack", "digits-lt", whole)[0] == 0
    code, out, _ = call(capsys, "data", "pack", "digits-lt", part, "--limit-test", 50)
    assert code == 0 and "50 test images" in out and part.stat().st_size < whole.stat().st_size
    code, out, _ = call(capsys, "data", "verify", part)
    assert code == 0 and "test indices" in out
    plain, packed = (call(capsys, "data", "info", "digits-lt", *extra)[1] for extra in ([], ["--data-dir", part]))
    assert plain == packed
    runs = ["--runs-dir", tmp_path / "runs", "--results-dir", tmp_path / "results"]
    asked = ["--method", "at", "--dataset", "digits-lt", "--data-dir", part, "--limit-train", 60, "--epochs", 1, *FAST]
    line = refused(capsys, "run", *asked, *runs)
    assert "holds 50 test images and lacks 50 of the 100 that are to be tested; add --limit-test" in line
    assert not list((tmp_path / "runs").iterdir())
    code, _, err = call(capsys, "run", *asked, *runs, "--limit-test", 50)
    assert code == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    more = refused(capsys, "eval", folder / "model.safetensors", "--data-dir", part, "--limit-test", 80)
    assert "lacks 30 of the 80" in more


@pytest.fixture
def photos(tmp_path):
    """A small imbalanced folder of images."""
    generator = np.random.default_rng(0)
    for name, count in {"ants": 12, "bees": 30, "cats": 40}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_a_folder_of_images_from_run_to_eval(capsys, photos, tmp_path, monkeypatch):
    (photos / "cats" / "list.txt").write_text("not an image")
    place = ["--runs-dir", tmp_path / "runs", "--results-dir", tmp_path / "results"]
    code, out, err = call(
        capsys, "run", "--method", "at-bsl", "--dataset", f"folder:{photos}@8", "--protocol", "smoke", *place
    )
    assert code == 0, err
    assert "images scaled from 20x20 each to 8x8; @20 keeps more of them\n  1 files were left out: 1 .txt\n" in out
    assert "each class has 2 test images, and one image is 50 points" in out
    table = out[out.index("class by class") :].splitlines()
    assert sorted(line.split()[:3] for line in table[4:7]) == [
        ["ants", "10", "2"],
        ["bees", "28", "2"],
        ["cats", "38", "2"],
    ]
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("at-bsl-folder-photos-8px-ir3.8-")
    monkeypatch.setenv("LTBENCH_DATA", str(tmp_path))  # where other data sets lie
    for command in (["eval", folder / "model.safetensors"], ["report", "analyse", folder]):
        code, out, err = call(capsys, *command)
        assert code == 0 and "tail" in out, err
    monkeypatch.delenv("LTBENCH_DATA")
    next(photos.glob("bees/*.png")).unlink()
    other = photos.rename(tmp_path / "fewer")  # a process reads each folder once
    assert "needs a data folder" in refused(capsys, "eval", folder / "model.safetensors")
    assert "another folder" in refused(capsys, "eval", folder / "model.safetensors", "--data-dir", other)


def test_folds_of_a_folder_are_put_together(capsys, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["run", "--method", "erm", "--dataset", f"folder:{photos}@8", *FAST]
    code, out, err = call(capsys, *asked, "--folds", 3, "--epochs", 1)
    assert code == 0, err
    last = out[out.index("class by class, over 3 folds") :].splitlines()
    rows = sorted(line.split()[:3] for line in last[4:7])
    assert rows == [["ants", "8", "12"], ["bees", "26", "12"], ["cats", "36", "12"]]
    assert {path.name.split("-ir")[0] for path in (tmp_path / "runs").iterdir()} == {
        f"erm-folder-photos-8px-fold{i}of3" for i in (1, 2, 3)
    }
    code, out, _ = call(capsys, *asked, "--test-share", 0.5, "--dry-run")
    assert code == 0 and "6 images of each class (50% of the smallest) are the test set" in out
    assert "has its own test set" in refused(capsys, "run", "--method", "at", "--dataset", "digits-lt", "--folds", 2)


def test_a_run_on_an_archive_of_few_test_images(capsys, tmp_path, monkeypatch):
    """Its places in the archive are not those in the test set: whoever looks at an image asks for it by its index."""
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "data", "pack", "digits-lt", "few.zip", "--limit-test", 10)[0] == 0
    small = ["--limit-train", 50, "--limit-test", 10, "--epochs", 1, "--data-dir", "few.zip"]
    code, _, err = call(capsys, "run", "--method", "at", "--dataset", "digits-lt", *FAST, *small)
    assert code == 0, err
