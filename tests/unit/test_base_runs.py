"""Methods that build on a finished run: reuse, what is trained, what it costs, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ltrobust_bench.cards import methods
from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.progress import Silent
from ltrobust_bench.training.checkpoint import read_model
from ltrobust_bench.training.step import Step
from ltrobust_bench.training.trainer import Session, train_plan
from ltrobust_bench.verbs import load_model, run_plan

CPU = torch.device("cpu")
BUILDING = [e.name for e in methods if e.load().card.base is not None]
POST_HOC = [slug for slug in BUILDING if methods.get(slug).card.budget == 0]


def smoke(slug, **request):
    return make_plan(slug, "digits-lt", protocol="smoke", **request)


def train(plan, root):
    return train_plan(plan, root / plan.run.folder_name(), CPU)


@pytest.fixture(scope="module")
def finished_at(tmp_path_factory):
    """A folder of runs in which adversarial training is finished already."""
    root = tmp_path_factory.mktemp("runs")
    return root, train(smoke("at"), root)


@pytest.mark.parametrize("slug", POST_HOC)
def test_post_hoc_reuses_the_finished_run(slug, finished_at):
    root, at = finished_at
    result = train(smoke(slug), root)
    assert result.forwards_here == 0 and result.history == [] and result.cost == at.cost
    ours, theirs = read_model(result.model_path)[0], read_model(at.model_path)[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(load_model(result.model_path).model(x), load_model(at.model_path).model(x))


@pytest.mark.parametrize(
    ("slug", "settings", "moves"),
    [
        ("crt", {}, {"head.weight", "head.bias"}),
        ("lws", {}, {"head.scales"}),
        ("rw-fine", {}, {"head.weight", "head.bias"}),
        ("rw-fine", {"scope": "all"}, None),
    ],
)
def test_only_what_the_method_trains_moves(slug, settings, moves, finished_at):
    root, at = finished_at
    result = train(smoke(slug, settings=settings), root)
    ours, before = read_model(result.model_path)[0], read_model(at.model_path)[0]
    statistics = {n for n in ours if n.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")}
    changed = {n for n in ours if n not in before or not torch.equal(ours[n], before[n])}
    assert changed - statistics == (set(ours) - statistics if moves is None else moves)
    assert changed & statistics, "batch norm sees the rebalanced adversarial batches"
    assert result.cost.steps > at.cost.steps and result.cost.forwards == at.cost.forwards + result.forwards_here


def test_reset_head_forgets_the_finished_one(finished_at):
    root, _ = finished_at
    kept, reset = (train(smoke("crt", settings={"classifier": c}), root) for c in ("trained", "reset"))
    kept, reset = (read_model(r.model_path)[0]["head.weight"] for r in (kept, reset))
    assert not torch.allclose(kept, reset)


def test_missing_base_is_trained_first_and_its_cost_is_in_the_record(tmp_path):
    plan = smoke("tau-norm", seed=3)
    record = run_plan(plan, runs_dir=tmp_path, results_dir=None, device=CPU, progress=Silent())
    assert (tmp_path / plan.base.run.folder_name() / "model.safetensors").exists()
    assert record.run.base_key == plan.base.run.key()
    assert record.cost.base == record.cost.training and record.cost.training.forwards > 0
    at = run_plan(plan.base, runs_dir=tmp_path, results_dir=None, device=CPU, progress=Silent())
    assert at.run.base_key is None and at.cost.base is None
    assert at.cost.training.forwards == record.cost.training.forwards


@pytest.mark.parametrize("slug", BUILDING)
def test_budget_over_both_runs(slug):
    """At most a tenth more than the protocol's budget; a teacher's training comes out of it."""
    plan = make_plan(slug, "digits-lt")
    card, whole = plan.card, make_plan("at", "digits-lt").budget
    spent = plan.budget + plan.base.budget
    assert spent <= (whole if card.base.role == "teacher" else 1.1 * whole)
    assert (plan.budget == 0) == (slug in POST_HOC)
    assert plan.run.model == plan.base.run.model and plan.run.seed == plan.base.run.seed


def test_the_base_is_the_same_run_for_all_and_follows_the_plug_ins():
    keys = {make_plan(slug, "digits-lt", seed=1).run.base_key for slug in ("crt", "lws", "tau-norm")}
    assert keys == {make_plan("at", "digits-lt", seed=1).run.key()}
    plugged = make_plan("tau-norm", "digits-lt", plugins=["awp"], settings={"awp.gamma": 0.02})
    assert plugged.base.run.plugins == ["awp"] and plugged.base.run.options["awp.gamma"] == 0.02
    tuned = make_plan("crt", "digits-lt", settings={"lr": 0.01})
    assert tuned.run.recipe.lr == 0.01 and tuned.base.run.recipe.lr == 0.1


@pytest.mark.parametrize(
    ("slug", "model"), [("hat", "resnet18"), ("selfdistill", "resnet18"), ("crt", "wrn-34-10"), ("faal", "wrn-34-10")]
)
def test_what_it_builds_on_has_the_network_that_the_card_states(slug, model, monkeypatch):
    """In track paper; a card that states none takes that of the run it builds on. By hand it is another for both."""
    # Authors' networks are for larger images than digits.
    monkeypatch.setattr("ltrobust_bench.plan.make.LARGE_IMAGE", 8)
    for asked, expected in ((None, model), ("wrn-28-10", "wrn-28-10")):
        theirs = make_plan(slug, "digits-lt", track="paper", model=asked)
        assert theirs.run.model == theirs.base.run.model == expected
    fixed = make_plan(slug, "digits-lt")
    assert fixed.run.model == fixed.base.run.model == "small"


def test_settings_of_a_training_that_does_not_happen_are_refused():
    with pytest.raises(UsageError, match="tau-norm trains nothing"):
        make_plan("tau-norm", "digits-lt", settings={"attack.steps": 5})


def test_paper_track_is_one_epoch_more_at_the_first_rate():
    plan = make_plan("lws", "digits-lt", track="paper")
    assert plan.run.recipe.epochs == 1 and plan.run.recipe.lr == 0.1 and plan.base.run.recipe.epochs == 80
    assert make_plan("tau-norm", "digits-lt", track="paper").run.recipe.epochs == 0


def test_short_budget_by_hand():
    plan = make_plan("crt", "digits-lt", epochs=20)
    assert (plan.run.recipe.epochs, plan.base.run.recipe.epochs) == (2, 20) and plan.run.reduced


@pytest.mark.parametrize("slug", [s for s in BUILDING if s not in POST_HOC])
def test_weights_go_on_in_a_network_of_the_same_activation(slug):
    """A teacher is a network of its own; one whose weights are taken has to be the same function of them."""
    plan = smoke(slug, settings={"activation": "silu"})
    ours, theirs = (one.run.recipe.activation for one in (plan, plan.base))
    assert ours == "silu" and theirs == ("silu" if plan.card.base.role == "start" else "relu")
    assert smoke(slug, settings={"activation": "relu"}).run.base_key == smoke(slug).run.base_key


def test_a_helper_is_asked_once_a_step_whatever_the_targets(tmp_path):
    session = Session(smoke("hat", plugins=["mixup"], limit_train=100), tmp_path, CPU, Silent(), None)
    asked = []
    session.trainee.teacher = lambda images: asked.append(images) or images.flatten(1)[:, :10]
    step = Step(session.trainee, *next(session.loader.epoch(1)), epoch=1, epochs=2)
    step.craft()
    before = session.trainee.counter.forwards
    step.update()
    assert len(asked) == 1 and asked[0] is step.x_adv
    # The helper's pass, both batches, and the helper's images for each of the two labels.
    assert session.trainee.counter.forwards - before == len(step.y) * (1 + 2 + 2)


def test_the_second_code_path_of_hat_has_no_decay_on_batch_norms(tmp_path):
    plain, apart = (
        Session(smoke("hat", limit_train=100, settings=given), tmp_path / str(len(given)), CPU, Silent(), None)
        for given in ({}, {"decay_norms": False})
    )
    (one,) = plain.trainee.optimizer.param_groups
    rest, norms = apart.trainee.optimizer.param_groups
    decay = apart.plan.run.recipe.weight_decay
    assert decay > 0 and [group["weight_decay"] for group in (one, rest, norms)] == [decay, decay, 0.0]
    wanted = {
        f"{name}.{own}"
        for name, module in apart.trainee.network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for own in ("weight", "bias")
    }
    assert wanted and {id(p) for p in norms["params"]} == {id(apart.trainee.network.get_parameter(n)) for n in wanted}
    assert len(rest["params"]) + len(norms["params"]) == len(one["params"])
