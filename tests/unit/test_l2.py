"""The threat model L2 from end to end: it is trained against, attacked within, written down and verified."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from record_factory import synthetic_record
from short_autoattack import SHORT, shorten

from ltrobust_bench import verbs
from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.attacks.pgd import PGD, pgd
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.interop.model_info import model_info, obstacles
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.protocol import default_protocol, load, load_protocol, protocols
from ltrobust_bench.protocol.load import PROTOCOL_FILES
from ltrobust_bench.registry import Registration
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.latex import escaped
from ltrobust_bench.report.paper import paper_table, render
from ltrobust_bench.training.build import (
    build_method,
    build_plugins,
    companion_of,
    network_of,
    trained_parameters,
)
from ltrobust_bench.training.estimate import _stand_in
from ltrobust_bench.training.step import Step, Trainee
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs.counterexamples import try_examples
from ltrobust_bench.verbs.verification import Where

CPU, L2, DIGITS = torch.device("cpu"), BALLS["L2"], "digits-l2-v0"
EPSILON = 0.5
PGD20 = PGD(name="pgd-20", kind="pgd", steps=20, step_size="epsilon/4", start="uniform", restarts=1)


def images_of(task):
    index = task.split.test
    return DeviceData.of(task.source.test_images[index], task.source.test_labels[index], CPU)


def trained(method, folder):
    plan = make_plan(method, "digits-lt", protocol=DIGITS, epochs=15, limit_test=200)
    return verbs.load_model(train_plan(plan, folder / method, CPU).model_path, device="cpu").model, plan.task


@pytest.fixture(scope="module")
def adversarial(tmp_path_factory):
    """A net trained for fifteen short epochs against L2, and its task."""
    return trained("at", tmp_path_factory.mktemp("run"))


def test_a_dataset_keeps_its_linf_protocol():
    """A protocol of another threat model, candidate or not, is asked for by its name."""
    assert [default_protocol(d) for d in ("digits-lt", "cifar10-lt", "cifar100-lt")] == [
        "digits-v0",
        "ltr-linf-v1",
        "ltr-linf-v1",
    ]


@pytest.mark.parametrize("status", ["candidate", "frozen"])
def test_the_main_protocol_is_the_default_whatever_is_frozen_before_it(monkeypatch, status):
    """The lite protocol covers the same data sets, and has a board first."""
    lite = load_protocol("ltr-linf-lite-v1").model_copy(update={"status": status})
    monkeypatch.setattr(load, "load_protocol", lambda name: lite if name == lite.name else load_protocol(name))
    assert load_protocol("ltr-linf-v1").training.precision == "tf32"
    assert default_protocol("cifar10-lt") == default_protocol("cifar100-lt") == "ltr-linf-v1"
    assert default_protocol("digits-lt") == "digits-v0"


@pytest.mark.parametrize(("ours", "theirs"), [("digits-l2-v0", "digits-v0"), ("ltr-l2-v1", "ltr-linf-v1")])
def test_only_what_the_ball_decides_differs_from_the_linf_protocol(ours, theirs):
    ours, theirs = load_protocol(ours), load_protocol(theirs)
    assert ours.evaluation == theirs.evaluation and ours.threat_model == "L2"
    for name, terms in ours.datasets.items():
        assert terms.model_copy(update={"epsilon": 0.0}) == theirs.datasets[name].model_copy(update={"epsilon": 0.0})
    same = {"attack": theirs.training.attack}
    assert ours.training.model_copy(update=same) == theirs.training
    assert ours.training.attack.model_copy(update={"step_size": "epsilon/4"}) == theirs.training.attack


def test_the_threat_model_is_part_of_a_run_and_the_default_leaves_keys_alone():
    run = make_plan("at", "digits-lt").run
    assert "threat_model" not in run.model_dump(exclude_defaults=True)
    other = run.model_copy(update={"threat_model": "L2"})
    assert other.key() != run.key()
    assert make_plan("at", "digits-lt", protocol=DIGITS).run.threat_model == "L2"


def test_training_against_l2_makes_robust_in_l2(adversarial, tmp_path):
    def robust(model, task):
        suite = task.protocol.evaluation
        found = evaluate_images(
            model, images_of(task), classes=10, epsilon=EPSILON, suite=suite, ball=L2, attacks=[PGD20]
        )
        return found.bits["pgd-20"].mean()

    assert robust(*adversarial) > robust(*trained("erm", tmp_path)) + 0.1


def test_verdict_is_the_official_autoattack(adversarial):
    """``run_standard_evaluation(norm="L2")``, image by image, at the same seed and batch size."""
    from pyautoattack import AutoAttack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    model, task = adversarial
    data, suite = images_of(task), task.protocol.evaluation.model_copy(update={"batch_size": 32})
    official = shorten(AutoAttack(model, norm="L2", eps=EPSILON, seed=0, device="cpu", version="standard"))
    with frozen(model):
        _, predicted = official.run_standard_evaluation(to_unit(data.images), data.labels, batch_size=32)
    ours = evaluate_images(model, data, classes=10, epsilon=EPSILON, suite=suite, ball=L2, attacks=[SHORT])
    assert np.array_equal(ours.bits["autoattack"], (predicted == data.labels).numpy())
    assert 0 < ours.bits["autoattack"].sum() < ours.bits["clean"].sum()


def test_an_honest_network_falls_at_the_grey_radius(adversarial):
    model, task = adversarial
    suite = task.protocol.evaluation.model_copy(update={"attacks": []})
    seen = evaluate_images(model, images_of(task), classes=10, epsilon=EPSILON, suite=suite, ball=L2, examined=200)
    assert seen.reliability.accuracy_at_half <= 0.1
    radii = [seen.reliability.accuracy_by_radius[f"{factor:g}"] for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
    assert radii == sorted(radii, reverse=True) and radii[0] > radii[-1]


@pytest.mark.parametrize("slug", [*methods.names(), *plugins.names()])
def test_every_method_takes_a_step_in_l2(slug):
    """Signed steps would leave an image of 64 pixels at up to 8 epsilon; no method's own budget reaches 3."""
    names = {"plugins": [slug]} if slug in plugins else {}
    plan = make_plan("at" if names else slug, "digits-lt", protocol=DIGITS, **names)
    run, task = plan.run, plan.task
    recipe = run.recipe.model_copy(update={"attack": run.recipe.attack.model_copy(update={"steps": 2})})
    method, info = build_method(run.method, run.options, run.train_counts, run.dataset, max(1, recipe.epochs), CPU)
    network = network_of(run, task.spec.shape, method)
    parts = build_plugins(run.plugins, run.options, info)
    teacher = _stand_in(plan.base, CPU) if plan.base and plan.card.base.role == "teacher" else None
    companion = companion_of(run, task.spec.shape, method)
    optimizer = torch.optim.SGD(trained_parameters(network, method, companion), lr=0.1)
    trainee = Trainee(
        network, method, recipe, optimizer, Counter(), parts, teacher, run.policy, task.ball, companion=companion
    )
    chosen = task.split.train[::40]
    x, y = to_unit(torch.from_numpy(task.source.train_pixels(chosen))), task.source.train_labels[chosen]
    middle = {"epoch": max(1, recipe.epochs // 2), "epochs": max(1, recipe.epochs)}  # some radii grow from 0
    labels = torch.from_numpy(y)
    step = Step(trainee, x, labels, (x.flip(0), labels.flip(0)), **middle)
    with torch.random.fork_rng():
        moved = step.craft(generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(step.update())
    assert L2.distance(moved, step.x).max() <= 3 * run.epsilon and moved.min() >= 0 and moved.max() <= 1
    assert method.crafts(*middle.values()) == bool((moved != step.x).any())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run under the smoke protocol in L2, and its folder."""
    folder = tmp_path_factory.mktemp("l2")
    text = (PROTOCOL_FILES / "smoke.toml").read_text(encoding="utf-8")
    text = text.replace('"Linf"', '"L2"').replace('name = "smoke"', 'name = "smoke-l2"').replace("0.15", str(EPSILON))
    (folder / "smoke-l2.toml").write_text(text, encoding="utf-8")
    protocols.add(Registration("smoke-l2", folder / "smoke-l2.toml"))
    try:
        record = verbs.run("at", "digits-lt", protocol="smoke-l2", runs_dir=folder, results_dir=None, device="cpu")
        yield record, folder / record.run.folder_name()
    finally:
        del protocols._entries["smoke-l2"]


@pytest.mark.usefixtures("judge_here")
@pytest.mark.parametrize("ball", BALLS.values(), ids=list(BALLS))
def test_examples_are_measured_in_the_records_ball(finished, tmp_path, ball):
    record, folder = finished
    assert record.run.threat_model == "L2" and record.run.epsilon == EPSILON
    task, model = verbs.task_of(record.run), verbs.load_model(folder, device="cpu").model
    data = images_of(task)
    x = to_unit(data.images)
    radius = {"Linf": EPSILON / 4, "L2": EPSILON}[ball.name]
    moved = pgd(model, x, data.labels, ball=ball, epsilon=radius, step_size=radius / 4, steps=5)
    np.savez(tmp_path / "found.npz", index=task.split.test, images=moved.numpy())
    if ball is L2:
        found = try_examples(record, folder, tmp_path / "found.npz", Where("somebody", device="cpu"))
        assert found.images == len(x)
    else:  # a cube's corner is eight times its radius from the middle
        with pytest.raises(UsageError, match="leave the ball or the box, .* L2 distance"):
            try_examples(record, folder, tmp_path / "found.npz", Where("somebody", device="cpu"))


def test_tables_and_exports_name_the_norm():
    protocol = load_protocol(DIGITS)
    stated = protocol.terms("digits-lt").epsilon
    terms = {"protocol": protocol.name, "protocol_digest": protocol.digest("digits-lt"), "threat_model": "L2"}
    record = synthetic_record(**terms, epsilon=float(stated), method="reat")
    (board,) = boards([record])
    assert f"L2 radius {stated}" in render(paper_table(board), "markdown")
    assert escaped("L2 radius") == r"$\ell_2$ radius" and escaped("digits-l2-v0") == "digits-l2-v0"
    assert len(boards([record, synthetic_record(**{**terms, "threat_model": "Linf"}, epsilon=float(stated))])) == 2
    theirs = synthetic_record(method="reat", dataset="cifar10-lt", epsilon=0.5, threat_model="L2", tests_per_class=1000)
    assert model_info(theirs)["eps"] == "0.5" and obstacles(theirs) == []
    ours = synthetic_record(method="reat", dataset="cifar10-lt", epsilon=128 / 255, threat_model="L2")
    assert "RobustBench's L2 radius is 0.5, not 0.502" in obstacles(ours)


def test_an_analysis_and_a_curve_are_made_in_the_ball(finished):
    record, folder = finished
    assert verbs.analyse(folder, device="cpu").confusion.attack == "pgd-5"
    curve = verbs.curve(folder, "eps", limit_test=20, device="cpu")
    assert curve.threat_model == "L2" and curve.epsilon == EPSILON and replace(curve, images=1).x == curve.x
