"""What notebook users see and type: short forms of results, progress, data sets in memory, friendly errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from record_factory import synthetic_record

import ltrobust_bench as lt
from ltrobust_bench import notebook
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.errors import CheckpointError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent, Warned
from ltrobust_bench.records.io import write_record
from ltrobust_bench.registry import DuplicateNameError
from ltrobust_bench.verbs import loading


def test_a_record_in_short_and_as_a_table():
    record = synthetic_record()
    metrics = record.metrics("union")
    for text in (repr(record), str(record)):
        assert len(text) < 200 and f"union {100 * metrics.balanced:.1f} %" in text and record.id in text
    assert (record.metrics().per_class == metrics.per_class).all(), "union is the default"
    with pytest.raises(KeyError):
        record.metrics("none")
    page = record._repr_html_()
    assert page.count("<tr>") == len(record.attacks) + 3 and len(page) < 5000
    assert f"{100 * record.metrics('autoattack').tail:.1f}" in page


def test_an_evaluation_in_short():
    labels = np.repeat(np.arange(4), 5)
    bits = {"clean": np.ones(20, dtype=bool), "pgd<script>": labels > 1}
    result = lt.Evaluation(bits, labels, [40, 20, 10, 5], None, 0, 0, 0.0)
    assert repr(result) == "<Evaluation of 20 images, 1 attacks: clean 100.0 %, union 50.0 % (tail 100.0 %)>"
    page = result._repr_html_()
    assert "<script>" not in page and "pgd&lt;script&gt;" in page


def test_a_leaderboard_is_short_and_writes_nothing_unless_asked(tmp_path, monkeypatch):
    for seed in range(3):
        write_record(synthetic_record(seed=seed), tmp_path / f"{seed}.json")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for places in (tmp_path, str(tmp_path), [tmp_path]):
        found = lt.leaderboard(places)
    assert found.written == [] and sorted(tmp_path.rglob("*")) == before
    assert len(repr(found)) < 200 and len(repr(found.boards)) < 500 and len(repr(found.boards[0].entries)) < 500
    assert repr(found).startswith("<Leaderboard of 1 boards, 1 entries")
    page = found._repr_html_()
    assert "synthetic" in page and len(page) < 20_000
    asked = lt.leaderboard(tmp_path, tmp_path / "out", figures=False)
    assert sorted(path.name for path in asked.written) == [
        "groups.csv",
        "leaderboard.csv",
        "leaderboard.md",
        "per_class.csv",
    ]


@pytest.fixture
def wine():
    """Four kinds of stripes, as a function of no folder."""
    generator = np.random.default_rng(0)

    def load(folder):
        assert folder is None
        images, labels = np.zeros((120, 1, 8, 8), dtype=np.uint8), np.arange(120) % 4
        for image, label in zip(images, labels, strict=True):
            image[0, :, 2 * label : 2 * label + 2] = 200
        images += generator.integers(0, 50, images.shape, dtype=np.uint8)
        return lt.Source(images[:80], labels[:80], images[80:], labels[80:], ("a", "b", "c", "d"))

    terms = lt.DatasetTerms(
        epsilon="0.1", imbalance_ratio=4.0, profile="exp", model="small", crop_padding=1, flip=False
    )
    yield lt.DatasetSpec("stripes-lt", "for the test", load, classes=4, shape=(1, 8, 8), terms=terms)
    datasets._entries.pop("stripes-lt", None)


def test_a_data_set_in_memory_is_run_and_evaluated(wine, tmp_path):
    record = lt.run("erm", wine, protocol="smoke", epochs=1, runs_dir=tmp_path, results_dir=None, device="cpu")
    assert record.run.dataset == "stripes-lt" and record.run.train_counts[0] == 20
    result = lt.evaluate(lambda x: x[:, 0].mean(1)[:, ::2], wine, protocol="smoke", attacks=["fgsm"], device="cpu")
    assert float(result.metrics("clean").balanced) == 1.0
    assert lt.register_dataset(wine) == "stripes-lt", "a cell may be run again"
    source = wine.loader(None)
    darker = replace(source, train_images=source.train_images // 2)
    other = make_plan("erm", replace(wine, loader=lambda _: darker), protocol="smoke").run
    assert other.key() != make_plan("erm", wine, protocol="smoke").run.key(), "other pixels, another run"
    assert make_plan("erm", "Stripes-LT", protocol="smoke").run.dataset == "stripes-lt"
    with pytest.raises(DuplicateNameError, match="cifar10-lt"):
        lt.register_dataset(lt.DatasetSpec("cifar10-lt", "", wine.loader, classes=4, shape=(1, 8, 8)))
    with pytest.raises(UsageError, match="no name of a data set"):
        lt.register_dataset(lt.DatasetSpec("My data", "", wine.loader, classes=4, shape=(1, 8, 8)))


def test_names_are_taken_in_any_case():
    usual, shouted = (
        make_plan(m, d, protocol=p, model=n, plugins=[w]).run.key()
        for m, d, p, n, w in (
            ("reat", "digits-lt", "smoke", "small", "awp"),
            ("REAT", "Digits-LT", "Smoke", "SMALL", "AWP"),
        )
    )
    assert usual == shouted


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".onnx"])
def test_other_peoples_files_are_explained(tmp_path, ending):
    torch.save({}, tmp_path / f"net{ending}")
    for call in (lt.load_model, lt.evaluate):
        with pytest.raises(
            CheckpointError, match=r"is no network of this package.*evaluate\(module, dataset\).*--torch"
        ):
            call(tmp_path / f"net{ending}")
    assert ending in loading.PICKLES


class Kernel:
    """As IPython shows things: what was displayed, and what took its place."""

    def __init__(self):
        self.lines = []

    def display(self, thing, display_id=False):
        self.lines.append(thing)
        place = len(self.lines) - 1
        return SimpleNamespace(update=lambda other: self.lines.__setitem__(place, other))


def test_progress_is_shown_in_notebooks_and_nowhere_else(monkeypatch, tmp_path):
    kernel = Kernel()
    assert isinstance(notebook.usual_progress(None), Silent) and not notebook.usual_progress(None).shown
    shell = SimpleNamespace(kernel=None)
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=kernel.display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    mine = Silent()
    assert notebook.usual_progress(mine) is mine
    lt.train("erm", "digits-lt", protocol="smoke", epochs=1, limit_train=40, runs_dir=tmp_path, device="cpu")
    said = [repr(line) for line in kernel.lines]
    assert len(said) < 12 and sum("/" in line and ": " in line for line in said) >= 1
    assert any(line.startswith("warning: no board accepts") for line in said)
    shown = notebook.Shown(kernel.display)
    shown.start("training", 10)
    monkeypatch.setattr(notebook, "PERIOD", 0.0)
    shown.advance(5, lambda: "loss 1")
    assert repr(kernel.lines[-1]).startswith("training: 5/10, ") and repr(kernel.lines[-1]).endswith("left. loss 1")
    shown.tell(Warned("odd"))
    assert repr(kernel.lines[-1]) == "warning: odd"
    monkeypatch.setattr(fake, "get_ipython", lambda: None)
    assert not notebook.usual_progress(None).shown, "IPython is imported elsewhere, too"
