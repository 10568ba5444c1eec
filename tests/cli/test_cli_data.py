"""``ltbench data``."""

from __future__ import annotations

from command_line import call, refused


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
