"""Analyses of one network: on models where everything is known, and against the evaluator's own verdict."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from record_factory import synthetic_record
from torch import nn

from ltrobust_bench import verbs
from ltrobust_bench.api import Network, TrainInfo
from ltrobust_bench.attacks.pgd import PGD
from ltrobust_bench.cards import methods
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.analysis import QUANTILES, Answers, Classes, Confusion, Head, Observations, analysis_of
from ltrobust_bench.evaluation.observe import observe
from ltrobust_bench.longtail import AffineLogits, CosineHead
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite
from ltrobust_bench.report.analysis_figures import (
    confusion_figure,
    errors_figure,
    margins_figure,
    norms_figure,
    write,
)
from ltrobust_bench.report.figures import WIDTHS, save

CPU = torch.device("cpu")
PGD20 = PGD(name="pgd-20", kind="pgd", steps=20, step_size="epsilon/4", start="uniform", restarts=1)
SUITE = Suite(seed=0, batch_size=4, attacks=[PGD20])
COUNTS = (50, 20, 5)
WEIGHT = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.5]])
BIAS = torch.tensor([0.0, 0.5, -50.0])
PIXELS = np.array([[150, 100, 50, 100], [100, 100, 100, 100], [100, 60, 120, 100], [50, 100, 220, 150]], dtype=np.uint8)
"""Features of four images, as pixels; the bias keeps class 2 from ever winning."""


def linear(weight=WEIGHT, bias=BIAS):
    head = nn.Linear(*weight.T.shape)
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


def images():
    """Each of the four images under label 0, 1 and 2; all pixels stay in [0, 1] within a radius of 0.1."""
    return DeviceData.of(np.tile(PIXELS, (3, 1)).reshape(12, 1, 2, 2), np.repeat(np.arange(3), 4), CPU)


def look(model, epsilon=0.1, suite=SUITE, data=None):
    model = model.eval()
    return observe(model, data or images(), classes=3, epsilon=epsilon, suite=suite, progress=Silent())


def analysed(seen, record=None):
    run = synthetic_record(train_counts=COUNTS, tests_per_class=4).run
    worst_case = None if record is None else (record.bits("clean"), record.bits("union"))
    return analysis_of(run, Classes(("cat", "dog", "eel"), COUNTS, (4, 4, 4)), seen, worst_case)


@pytest.fixture(scope="module")
def known():
    return analysed(look(Network(nn.Flatten(), linear())))


def logits():
    return np.tile(PIXELS / 255, (3, 1)) @ WEIGHT.double().numpy().T + BIAS.double().numpy()


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_margins_of_a_linear_model(known):
    """Clean: the formula. Attacked: two classes are left, and PGD20 reaches the corner, epsilon |w_0 - w_1|_1 below."""
    z = logits()
    clean = np.stack([z[:4, 0] - z[:4, 1], z[4:8, 1] - z[4:8, 0], z[8:, 2] - z[8:, :2].max(axis=1)])
    assert known.margins.clean == pytest.approx(np.quantile(clean, QUANTILES, axis=1).T, abs=1e-4)
    reach = 0.1 * float((WEIGHT[0] - WEIGHT[1]).abs().sum())
    attacked = np.quantile(clean[:2] - reach, QUANTILES, axis=1).T
    assert known.margins.attacked[:2] == pytest.approx(attacked, abs=1e-4)


def test_errors_and_confusion_of_a_linear_model(known):
    z = logits()[:4]
    difference, reach = z[:, 0] - z[:, 1], 0.1 * float((WEIGHT[0] - WEIGHT[1]).abs().sum())
    assert 0 < (difference > 0).mean() < 1 and (np.abs(difference) < reach).any(), "some of everything"
    natural = [(difference < 0).mean(), (difference > 0).mean(), 1]
    robust = [(difference > reach).mean(), (difference < -reach).mean(), 0]
    assert known.errors.natural == pytest.approx(natural)
    assert known.errors.natural + known.errors.boundary == pytest.approx(1 - np.array(robust))
    taken = np.array([[robust[0], 1 - robust[0], 0], [1 - robust[1], robust[1], 0]])
    assert known.confusion.shares[:2] == pytest.approx(taken)
    assert known.confusion.shares.sum(axis=1) == pytest.approx(1) and known.confusion.shares[2, 2] == 0
    assert known.errors.attack == known.confusion.attack == known.margins.attack == "pgd-20"


def test_norms_of_a_linear_model(known):
    lengths = np.linalg.norm(PIXELS / 255, axis=1)
    assert known.norms.feature == pytest.approx(np.full(3, lengths.mean()))
    assert known.norms.spread == pytest.approx(np.full(3, lengths.std()))
    assert known.norms.head.kind == "linear"
    assert known.norms.head.deployed == pytest.approx([5, 3, 0.5], rel=1e-5)
    assert known.norms.head.stored == pytest.approx([5, 3, 0.5])


def test_an_attack_without_radius_changes_nothing():
    seen = look(Network(nn.Flatten(), linear()), epsilon=1e-7)
    assert np.array_equal(seen.attacked.predicted, seen.clean.predicted)
    assert seen.attacked.margins == pytest.approx(seen.clean.margins, abs=1e-5)
    still = analysed(seen)
    clean = [[(seen.clean.predicted[4 * i : 4 * i + 4] == j).mean() for j in range(3)] for i in range(3)]
    assert still.confusion.shares == pytest.approx(np.array(clean)) and not still.errors.boundary.any()


def test_each_image_is_passed_once_clean_once_per_step_and_once_attacked():
    passed = []
    backbone = nn.Flatten()
    backbone.register_forward_hook(lambda module, given, output: passed.append(len(output)))
    network = Network(backbone, linear())
    look(network)
    assert sum(passed) == 12 * (1 + 20 + 1)
    assert network.backbone is backbone and len(backbone._forward_hooks) == 1, "the network is left as it was"


def test_a_suite_without_pgd_is_refused():
    with pytest.raises(UsageError, match="no PGD"):
        look(Network(nn.Flatten(), linear()), suite=SUITE.model_copy(update={"attacks": []}))


# --- heads and deployed forms ---------------------------------------------------------------------------------


def deployed(slug, head=None, **options):
    """A method's deployed form of the known features, with its own head on the known weights."""
    data = TrainInfo(torch.tensor(COUNTS, dtype=torch.float64), "digits-lt", 10)
    card = methods.get(slug)
    method = card.factory()({**card.card.resolve_options("fixed", {}), **options}, data)
    head = head or method.head(4, 3)
    head.load_state_dict({"weight": WEIGHT, "bias": BIAS}, strict=False)
    return method.deploy(Network(nn.Flatten(), head), data)


LENGTHS = np.array([5, 3, 0.5])


def test_what_is_deployed_counts_not_what_was_trained():
    tau = look(deployed("tau-norm", linear(), tau=0.5)).head
    assert tau.kind == "linear" and tau.deployed == pytest.approx(LENGTHS**0.5, rel=1e-4)
    cdt = look(deployed("cdt-posthoc", linear(), tau=1.0)).head
    assert cdt.deployed == pytest.approx(LENGTHS / COUNTS, rel=1e-4) and cdt.stored == pytest.approx(LENGTHS)
    shifted = look(
        AffineLogits(Network(nn.Flatten(), linear()), torch.tensor([1.0, 2.0, -3.0]), 7 * torch.ones(3))
    ).head
    assert shifted.kind == "linear" and shifted.deployed == pytest.approx(LENGTHS * [1, 2, 3], rel=1e-4)
    scaled = deployed("lws")
    scaled.head.scales.data = torch.tensor([1.0, 0.5, 2.0])
    assert look(scaled).head.deployed == pytest.approx(LENGTHS * [1, 0.5, 2], rel=1e-4)


def test_cosine_heads_are_told_from_linear_ones():
    cosine = CosineHead(4, 3, scale=10, gamma=0.5)
    cosine.weight.data = WEIGHT
    for model, norms in (
        (Network(nn.Flatten(), cosine), 10 * LENGTHS / (LENGTHS + 0.5)),
        (AffineLogits(Network(nn.Flatten(), cosine), 0.5, torch.ones(3)), 5 * LENGTHS / (LENGTHS + 0.5)),
        (deployed("cosine", scale=16.0, margin=0.0), [16, 16, 16]),
    ):
        head = look(model).head
        assert head.kind == "cosine" and head.deployed == pytest.approx(norms, rel=1e-4)
        assert head.stored == pytest.approx(LENGTHS) and "cosine head" in head.note
    tde = deployed("tde")
    tde.network.head.direction.copy_(torch.tensor([1.0, 2.0, 0.0, 1.0]))
    assert look(tde).head.kind == "cosine", "the direction is taken out of the class vectors"
    robal = look(deployed("robal")).head
    assert robal.kind == "cosine" and "class vectors" in robal.note


def test_heads_without_class_vectors(tmp_path):
    mlp = nn.Sequential(linear(), nn.Tanh(), nn.Linear(3, 3))
    seen = look(Network(nn.Flatten(), mlp))
    assert seen.head == Head("other", None, None) and seen.feature_norms is not None
    analysis = analysed(seen)
    assert rows(analysis.norms.csv())[0]["deployed_weight_norm"] == ""
    assert "neither" in analysis.norms.head.note
    norms_figure(analysis).canvas.draw()
    bare = analysed(look(nn.Sequential(nn.Flatten(), linear())))
    assert bare.norms is None and "norms" not in bare.parts
    assert not any(path.stem == "norms" for path in write(bare, tmp_path))


# --- numbers from what was seen -------------------------------------------------------------------------------


def test_where_the_tail_ends():
    shares = np.array([[0.9, 0.1, 0, 0], [0.3, 0.7, 0, 0], [0.2, 0.1, 0.5, 0.2], [0.5, 0.25, 0.15, 0.1]])
    confusion = Confusion(Classes(tuple("abcd"), (1, 40, 30, 20), (10,) * 4), shares, "pgd-20")
    # By size: b is the head, c and d are medium, a is the tail.
    assert confusion.ends["head"] == pytest.approx(shares[:, 1]) and confusion.ends["tail"] == pytest.approx(
        shares[:, 0]
    )
    assert sum(confusion.ends.values()) == pytest.approx(1) and sum(confusion.fates.values()) == pytest.approx(1)
    assert confusion.fates["medium"] == pytest.approx([0, 0, 0.2, 0.15])
    assert confusion.takers() == [(1, pytest.approx(0.1))] and confusion.takers("head") == [(0, pytest.approx(0.3))]
    (first, *_, last) = rows(confusion.csv())
    assert first["class"] == "b" and first["predicted a"] == "30.00" and first["to_tail"] == "30.00"
    assert last["class"] == "a" and (last["rank"], last["group"], last["train_images"]) == ("3", "tail", "1")


def test_a_records_worst_case_splits_the_error():
    bits = {"clean": [1, 1, 1, 0] * 3, "pgd-20": [1, 1, 0, 0] * 3, "fgsm": [1, 0, 1, 0] * 3}
    record = synthetic_record(bits, train_counts=COUNTS)
    analysis = analysed(look(Network(nn.Flatten(), linear())), record)
    assert analysis.errors.attack == "union" and analysis.confusion.attack == "pgd-20"
    assert analysis.errors.natural == pytest.approx([0.25] * 3)
    assert analysis.errors.boundary == pytest.approx([0.5] * 3)
    assert [row["attack"] for row in rows(analysis.errors.csv())] == ["union"] * 3
    assert rows(analysis.errors.csv())[0]["robust_error"] == "75.00"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The record and the run folder of a short run."""
    runs = tmp_path_factory.mktemp("analysed")
    request = {"protocol": "smoke", "epochs": 10, "runs_dir": runs, "results_dir": None, "device": "cpu"}
    return verbs.run("at-bsl", "digits-lt", **request), next(runs.iterdir())


def test_the_evaluators_verdict_is_found_again(trained):
    record, folder = trained
    whole = verbs.analyse(folder, device="cpu")
    clean, robust = (record.metrics(name).per_class for name in ("clean", "union"))
    assert whole.errors.attack == "union" and whole.errors.natural == pytest.approx(1 - clean)
    assert whole.errors.boundary == pytest.approx(clean - robust)
    reduced = verbs.analyse(folder / "model.safetensors", device="cpu", limit_test=50)
    assert reduced.errors.attack == "pgd-5" and reduced.errors.classes.test_counts == [5] * 10
    again = verbs.evaluate(folder, attacks=["pgd-5"], limit_test=50, device="cpu")
    assert 0 < again.metrics("pgd-5").overall < again.metrics("clean").overall
    robust_error = reduced.errors.natural + reduced.errors.boundary
    assert robust_error == pytest.approx(1 - again.metrics("pgd-5").per_class)


def test_the_same_run_gives_the_same_bytes(trained, tmp_path):
    first, second = (verbs.analyse(trained[1], device="cpu") for _ in range(2))
    assert list(first.parts) == ["errors", "confusion", "norms", "margins"]
    assert [part.csv() for part in first.parts.values()] == [part.csv() for part in second.parts.values()]
    drawn = [save(confusion_figure(analysis), tmp_path / name) for analysis, name in ((first, "a"), (second, "b"))]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*drawn, strict=True))


# --- figures --------------------------------------------------------------------------------------------------


def drawn(classes, kind="linear"):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 4)
    counts = np.linspace(500, 5, classes).astype(int).tolist()
    answers = Answers(rng.integers(0, classes, len(labels)), rng.normal(size=len(labels)))
    norms = np.linspace(2, 1, classes)
    seen = Observations(labels, answers, answers, "pgd-20", rng.random(len(labels)), Head(kind, norms, norms))
    names = tuple(f"a rather long name of a class, {i}" for i in range(classes))
    run = synthetic_record(train_counts=COUNTS, tests_per_class=4).run
    return analysis_of(run, Classes(names, counts, [4] * classes), seen)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("make", [errors_figure, confusion_figure, norms_figure, margins_figure])
def test_figures_fit_the_page_and_nothing_is_cut_off(make, classes):
    figure = make(drawn(classes, "cosine" if classes == 10 else "linear"))
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert width == WIDTHS["double"]
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01
