"""Policies of computing: in the record and the key, the same mathematics, and bf16 without a rank."""

from __future__ import annotations

import pytest
import torch
from record_factory import synthetic_record

from ltrobust_bench import verbs
from ltrobust_bench.api import Network, linear
from ltrobust_bench.cards import methods
from ltrobust_bench.compute import forwards
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.forwards import Forwards, usable_policy
from ltrobust_bench.compute.stand_in import StandIn
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models import models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.report.aggregate import REDUCED_PRECISION, boards, method_label
from ltrobust_bench.training import trainer
from ltrobust_bench.training.build import build_method
from ltrobust_bench.training.step import Step, Trainee
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import evaluations

CPU = torch.device("cpu")
FOLDED = Policy(crafting="folded", memory_format="channels_last")
WINOGRAD = Policy(crafting="winograd", memory_format="channels_last")
SMALL = {"protocol": "smoke", "epochs": 2, "limit_train": 100}


def plan(method="at", **request):
    return make_plan(method, "digits-lt", **{**SMALL, **request})


def test_the_default_policy_is_in_no_key():
    section = plan().run
    assert section.key() == section.model_copy(update={"policy": Policy()}).key()
    keys = {section.key(), *(plan(policy=p).run.key() for p in (FOLDED, WINOGRAD, Policy(compile=True)))}
    assert len(keys) == 4
    assert plan(precision="fp32").run.key() == section.key() != plan(precision="bf16").run.key()


def test_what_a_run_builds_on_is_computed_the_same_way():
    built = plan("crt", policy=FOLDED, precision="bf16")
    assert built.base.run.policy == FOLDED and built.base.run.recipe.precision == "bf16"


def one_step(slug, policy, precision="fp32", dtype=torch.float64, model="small"):
    """Adversarial images, loss and gradients of one step."""
    torch.manual_seed(0)
    recipe = plan(slug).run.recipe.model_copy(update={"precision": precision})
    options = methods.get(slug).card.resolve_options("fixed", {})
    method, _ = build_method(slug, options, [30, 20, 10, 5], "digits-lt", 1, CPU)
    backbone = models.get(model)((1, 8, 8))
    network = Network(backbone, method.head(backbone.features, 4)).to(dtype)
    x, y = torch.rand(12, 1, 8, 8, dtype=dtype), torch.arange(12) % 4
    with torch.no_grad():
        network.train()(x)  # running statistics that are not those of the start
    trainee = Trainee(network, method, recipe, torch.optim.SGD(network.parameters(), lr=0.1), Counter(), policy=policy)
    step = Step(trainee, x, y, epoch=1, epochs=1)
    crafted = step.craft(generator=torch.Generator().manual_seed(0))
    loss = step.update()
    return crafted, loss, torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.mark.parametrize("slug", ["at", "trades", "reat", "robal"])
@pytest.mark.parametrize("policy", [FOLDED, WINOGRAD], ids=["folded", "winograd"])
def test_the_fast_path_computes_the_plain_ones_loss_and_gradients(slug, policy):
    """In float64 all that differs is the order of operations."""
    for got, wanted in zip(one_step(slug, policy), one_step(slug, Policy()), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("policy", "precision", "pixels", "loss", "gradient"),
    [
        (FOLDED, "fp32", 0.01, 1e-4, 1e-3),
        (WINOGRAD, "fp32", 0.01, 1e-4, 1e-3),
        (FOLDED, "bf16", 0.1, 0.02, 0.5),
        (Policy(), "bf16", 0.1, 0.02, 0.5),
    ],
    ids=["folded", "winograd", "folded-bf16", "bf16"],
)
def test_float32_and_bfloat16_are_within_their_stated_distance(policy, precision, pixels, loss, gradient):
    """At most so many pixels differ, and loss and gradient by so much of their size."""
    plain, fast = (one_step("at", p, q, dtype=torch.float32) for p, q in ((Policy(), "fp32"), (policy, precision)))
    assert ((fast[0] - plain[0]).abs() > 1e-6).float().mean() < pixels
    assert abs(fast[1] - plain[1]) < loss * plain[1]
    assert (fast[2] - plain[2]).norm() < gradient * plain[2].norm()
    assert all(value.dtype == torch.float32 for value in fast)
    if precision == "bf16":
        assert not torch.equal(fast[2], plain[2])


def test_batch_statistics_are_never_folded():
    """In the crafting modes batch and train, batch norm is no fixed map: the network itself is attacked."""
    made = Forwards(Network(models.get("small")((1, 8, 8)), linear(64, 4)), FOLDED)
    x = torch.rand(2, 1, 8, 8)
    assert made.attacked(x, "batch").model == made.attacked(x, "train").model == made.logits
    made.network.eval()
    assert isinstance(made.attacked(x, "eval").model, StandIn)


def test_a_run_on_the_folded_copy_is_recorded_and_agrees(tmp_path):
    records = [
        verbs.run("reat", "digits-lt", **SMALL, policy=p, runs_dir=tmp_path, results_dir=None, device="cpu")
        for p in (Policy(), FOLDED)
    ]
    assert [r.run.policy for r in records] == [Policy(), FOLDED]
    assert not records[1].status.off_recipe
    clean = [r.bits("clean").mean() for r in records]
    assert abs(clean[0] - clean[1]) < 0.1


def test_a_run_in_bf16_is_off_recipe_and_unranked(tmp_path):
    record = verbs.run("at", "digits-lt", **SMALL, precision="bf16", runs_dir=tmp_path, results_dir=None, device="cpu")
    assert record.status.off_recipe and record.run.overrides == {"precision": "bf16"}
    assert record.environment.precision == "bf16" and not record.environment.tf32
    recipe = synthetic_record().run.recipe.model_dump() | {"precision": "bf16"}
    (board,) = boards([synthetic_record(recipe=recipe, overrides={"precision": "bf16"}), synthetic_record()])
    reduced, full = sorted(board.entries, key=lambda e: e.rank is not None)
    assert "precision=bf16" in reduced.label and REDUCED_PRECISION in reduced.flags
    assert (reduced.rank, full.rank) == (None, 1) and REDUCED_PRECISION not in full.flags


def test_a_policy_is_named_on_the_board():
    (board,) = boards([synthetic_record(policy=FOLDED.model_dump()), synthetic_record(seed=1)])
    assert len(board.entries) == 2
    assert any("crafting=folded" in entry.label for entry in board.entries)


def test_winograd_is_float32():
    with pytest.raises(UsageError, match="float32"):
        plan(precision="bf16", policy=WINOGRAD)


def test_weights_in_another_memory_format_are_resumed_exactly(tmp_path):
    class Stop(Silent):
        def advance(self, units=1, detail=None):
            self.left = getattr(self, "left", 3) - 1
            if self.left < 0:
                raise KeyboardInterrupt

    p = plan(policy=FOLDED)
    whole = train_plan(p, tmp_path / "whole", CPU)
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, tmp_path / "parts", CPU, Stop())
    resumed = train_plan(p, tmp_path / "parts", CPU)
    assert resumed.history == whole.history
    assert resumed.model_path.read_bytes()[-1000:] == whole.model_path.read_bytes()[-1000:]


def test_torch_compile_that_does_not_work_is_left_out_and_explained(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no working\ncompiler")

    monkeypatch.setattr(torch, "compile", broken)
    policy, why = usable_policy(CPU, None, "network", True)
    assert policy == Policy() and why == ["without torch.compile, which does not work here: no working compiler"]
    with pytest.raises(UsageError, match="torch.compile, which does not work here: no working compiler"):
        train_plan(plan(policy=Policy(compile=True)), tmp_path, CPU)


def test_a_compiled_network_is_the_network(monkeypatch, tmp_path):
    """With a compiler that changes nothing, so do the weights: every forward goes through what was compiled."""
    made = []

    def compiler(function, **_):
        made.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(forwards, "compile_problem", lambda device: None)
    monkeypatch.setattr(trainer, "compile_problem", lambda device: None)
    policy, why = usable_policy(CPU, "bf16", "folded", True)
    assert not any("compile" in note for note in why) and policy == FOLDED.model_copy(update={"compile": True})
    same = [
        train_plan(plan(policy=p), tmp_path / str(p.compile), CPU).history
        for p in (FOLDED, FOLDED.model_copy(update={"compile": True}))
    ]
    assert same[0] == same[1] and len(made) == 3


def test_the_default_options_are_the_reference_path():
    assert usable_policy(CPU, None, None, False) == (None, [])
    assert usable_policy(CPU, "fp32", "network", False) == (Policy(), [])


def test_a_protocol_may_fix_what_is_climbed(monkeypatch, tmp_path):
    """In training and in the suite; it is in the digest, and only another way of computing is named on a board."""
    smoke = load_protocol("smoke")
    suite = smoke.evaluation.model_copy(update={"search": "folded"})
    fixed = smoke.model_copy(update={"crafting": "folded", "evaluation": suite})
    assert len({p.digest("digits-lt") for p in (smoke, fixed, smoke.model_copy(update={"crafting": "folded"}))}) == 3
    monkeypatch.setattr("ltrobust_bench.plan.task.protocol_for", lambda dataset, name: fixed)
    monkeypatch.setattr("ltrobust_bench.report.aggregate.load_protocol", lambda name: fixed)
    asked = Request("at", "digits-lt", protocol="smoke", epochs=1, limit_train=40, limit_test=20)
    usual, other = asked.to_plan(), asked.replace(policy=Policy()).to_plan()
    assert (usual.run.policy, other.run.policy) == (FOLDED, Policy()) and usual.run.key() != other.run.key()
    assert method_label(usual.run) == "at"
    assert method_label(other.run) == "at (crafting=network, memory_format=contiguous)"
    record = verbs.run_plan(usual, runs_dir=tmp_path, results_dir=None, device=CPU, progress=Silent())
    assert record.result.search == "folded"


@pytest.mark.parametrize(("capability", "said"), [("AVX2", True), ("AVX512", False)])
def test_a_processor_without_bfloat16_is_told(monkeypatch, capability, said):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    policy, notes = usable_policy(CPU, "bf16", "network", False)
    assert policy.memory_format == "channels_last" and bool(notes) == said


def test_an_evaluation_searched_on_a_copy_confirms_on_the_network(tmp_path):
    """The copy's success counts only if the network itself is wrong, in float32."""
    result = train_plan(plan("at-bsl", epochs=4, limit_train=None), tmp_path, CPU)
    loaded = verbs.load_model(result.model_path, device="cpu")
    plain, folded, reduced = (
        verbs.evaluate(result.model_path, device="cpu", attacks=["fgsm", "pgd-5"], search=s)
        for s in ("network", "folded", "bf16")
    )
    for name, bits in plain.bits.items():
        assert (folded.bits[name] == bits).all() and abs(reduced.bits[name].mean() - bits.mean()) < 0.05
    record = verbs.finish_run(loaded, verbs.task_of(loaded.run), None, None, Silent(), search="folded")
    assert record.result.search == "folded" and record.result.bits.keys() == folded.bits.keys()
    assert (record.bits("union") == folded.bits["fgsm"] & folded.bits["pgd-5"]).all()


def test_a_reused_record_says_what_its_attacks_climbed_if_another_was_asked_for(tmp_path):
    class Heard(Silent):
        said = ""

        def note(self, text):
            self.said += text

    loaded = verbs.load_model(train_plan(plan(), tmp_path, CPU).model_path, device="cpu")
    said = {}
    for search in ("folded", "folded", "network"):
        heard = Heard()
        verbs.finish_run(loaded, verbs.task_of(loaded.run), tmp_path, None, heard, search=search)
        said[search] = heard.said
    assert said["folded"].endswith("record.json")
    assert said["network"].endswith("record.json, whose attacks climbed: folded")


@pytest.mark.parametrize("says", ["what the network says", "the opposite"])
def test_what_a_copy_makes_of_images_counts_for_nothing(monkeypatch, says):
    """A copy without a gradient breaks nothing. One that is wrong about every image stops all attacks at once, so all
    images are attacked again, on the network."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    class Useless(torch.nn.Module):
        def __init__(self, *_):
            super().__init__()

        def forward(self, x):
            logits = model(x.detach())
            return (logits if says == "what the network says" else -logits) + 0.0 * x.flatten(1)[:, :10]

    monkeypatch.setattr(evaluations, "StandIn", Useless)
    attacks = ["fgsm"] if says == "what the network says" else ["fgsm", "apgd-ce"]  # the latter starts with noise
    asked = {"protocol": "smoke", "limit_test": 50, "device": "cpu", "attacks": attacks}
    plain, useless = (verbs.evaluate(model, "digits-lt", search=s, **asked) for s in ("network", "bf16"))
    for attack in attacks:
        assert plain.bits["clean"].sum() > plain.bits[attack].sum()
        wanted = "clean" if says == "what the network says" else attack
        assert (useless.bits[attack] == plain.bits[wanted]).all()
