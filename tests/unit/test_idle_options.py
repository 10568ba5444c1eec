"""An option that changes nothing beside some value of another says so on its card, and no other option does: each is
tried, in a training of three steps whose weights and logits are looked at."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from ltrobust_bench.api import Network
from ltrobust_bench.cards import card_of, methods, plugins
from ltrobust_bench.cli.main import main
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.request import Request
from ltrobust_bench.protocol import AttackSpec, Recipe
from ltrobust_bench.protocol.schedule import Multistep
from ltrobust_bench.training.build import build_method, build_plugins, deployed, inherit, sampler_of, trained_parameters
from ltrobust_bench.training.step import Step, Trainee

CPU, EPOCHS, BATCH, FILTERS = torch.device("cpu"), 3, 8, 2
COUNTS = [10, 8, 6, 5, 5, 1]  # six classes, of which REAT's two definitions of the tail differ; batches lack the last
LABELS = np.repeat(np.arange(len(COUNTS)), COUNTS)
IMAGES = torch.rand(len(LABELS), 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES[range(len(LABELS)), 0, LABELS] *= 0.2  # a dark row, another one for each class
ATTACK = AttackSpec(epsilon=0.1, step_size=0.06, steps=1, start="uniform", clamp_start=False, bn_mode="eval")
RECIPE = Recipe(
    epochs=EPOCHS,
    batch_size=BATCH,
    drop_last=False,
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    precision="fp32",
    schedule=Multistep(kind="multistep", milestones=[], of=1),
    attack=ATTACK,
    bn_forwards=[],
    bn_forwards_after=[],
    clean_forward_before=False,
)


def network(head, seed):
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Conv2d(1, FILTERS, 3), nn.BatchNorm2d(FILTERS), nn.ReLU(), nn.Flatten())
    return Network(backbone, head(16 * FILTERS, len(COUNTS))).double()


@cache
def outcome(slug, options):
    """Weights after one step in each of three epochs, and deployed logits: of a method, or of a plug-in around plain
    adversarial training; what a method builds on is a network that nobody trained."""
    card, options = card_of(slug), dict(options)
    around = card.kind == "plugin"
    method, data = build_method("at" if around else slug, options, COUNTS, "cifar10-lt", EPOCHS, CPU)
    own = build_plugins([slug], {f"{slug}.{k}": v for k, v in options.items()}, data) if around else ()
    trained, base = network(method.head, 1), network(nn.Linear, 2)
    if card.base is not None and card.base.role == "start":
        inherit(trained, base.state_dict(), method.inherits)
    companion = network(method.companion, 3) if method.companion else None
    moved = trained_parameters(trained, method, companion, RECIPE.weight_decay)
    optimizer = RECIPE.optimizer.build(moved, RECIPE.lr, RECIPE.weight_decay)
    how = {"teacher": base.eval(), "companion": companion}
    trainee = Trainee(trained, method, RECIPE, optimizer, Counter(), own, **how)
    torch.manual_seed(5)
    for epoch in range(1, EPOCHS + 1) if card.budget else ():
        order = sampler_of(method, own)(LABELS, BATCH, epoch, np.random.default_rng(epoch))
        chosen, *partners = torch.from_numpy(np.atleast_2d(order)[:, :BATCH])
        batch = [(IMAGES[each], torch.from_numpy(LABELS)[each]) for each in (chosen, *partners)]
        step = Step(trainee, *batch[0], *batch[1:], epoch=epoch, epochs=EPOCHS)
        step.craft(generator=torch.Generator().manual_seed(epoch))
        step.update()
        for memory in trainee.memories.values():
            memory.on_epoch_end(epoch, trained)
    with torch.no_grad():
        logits = deployed(method, trained, data)(IMAGES)
    assert logits.isfinite().all()
    return b"".join(t.numpy().tobytes() for t in (*trained.state_dict().values(), logits))


def others(option, value):
    """Values that an option may have beside one: all where they are few, of numbers the ends of their range and some
    below and above."""
    if option.type == "bool":
        tried = [not value]
    elif option.choices:
        tried = option.choices
    else:
        near = 1.0 if value is None else value
        tried = [*turned(option, value), 2 * near, near / 2, near + 4, option.minimum, option.maximum, 0.01]
    return list(dict.fromkeys(v for v in tried if v is not None and v != value and fits(option, v)))


def fits(option, value):
    try:
        option.parse("it", value)
    except UsageError:
        return False
    return True


def turned(option, value):
    """Values of an option that may switch others off: every choice, a bool's other one, none, and 0."""
    if option.type == "bool" or option.choices:
        return others(option, value)
    if value is None:
        return [0 if fits(option, 0) else 0.5]
    return [v for v in (None, 0) if v != value and fits(option, v)]


BESIDE = {"cfa": {"threshold": 0.0}}
"""Other values than the defaults around which options are turned: where the worst class's robust accuracy, 0 here, must
reach a threshold first."""
COINCIDES = {
    (
        "robal",
        "evaluate_at",
        "variant",
    ): "that variant's own scale is the default s; beside another s it does something",
}
"""What does nothing beside a value of another, but would with a third option changed too."""


def settings(card, numbers):
    """The name of an option, and all options with that one turned; first as they are. Of numbers those that the card
    names beside others, or all."""
    plain = card.resolve_options("fixed", BESIDE.get(card.slug, {}))
    named = {other for option in card.options.values() for other in (*option.only_with, *option.not_with)}
    yield "", plain
    for name, option in card.options.items():
        if numbers or name in named or option.choices or option.type == "bool":
            for value in turned(option, plain[name]):
                yield name, plain | {name: option.parse(name, value)}


def changes_nothing(card, name, chosen):
    """Whether no other value of an option makes a difference beside these of the others."""
    as_chosen = outcome(card.slug, tuple(chosen.items()))
    given = (chosen | {name: card.options[name].parse(name, v)} for v in others(card.options[name], chosen[name]))
    return all(outcome(card.slug, tuple(each.items())) == as_chosen for each in given)


SLUGS = [slug for slug in [*methods.names(), *plugins.names()] if card_of(slug).options]


@pytest.mark.parametrize("slug", SLUGS)
def test_an_option_that_changes_nothing_beside_another_says_so(slug, numbers=False):
    card = card_of(slug)
    outcome.cache_clear()
    for turned_one, chosen in settings(card, numbers):
        for name in card.options:
            if name != turned_one and (slug, name, turned_one) not in COINCIDES:
                declared, idle = card.idle(name, chosen) is not None, changes_nothing(card, name, chosen)
                assert declared == idle, f"{name} beside {chosen}"


@pytest.mark.slow
@pytest.mark.parametrize("slug", SLUGS)
def test_an_option_that_changes_nothing_beside_a_zero_says_so(slug):
    test_an_option_that_changes_nothing_beside_another_says_so(slug, numbers=True)


def test_it_would_notice():
    card = card_of("mail")
    chosen = card.resolve_options("fixed", {"host": "at"})
    assert changes_nothing(card, "beta", chosen) and not changes_nothing(card, "beta", chosen | {"host": "trades"})


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("mail", ["host=at", "beta=3"], "mail: beta=3.0 has no effect with host=at; leave it out, or choose host="),
        ("frl", ["kind=rw", "rate_2=0.1"], "rate_2=0.1 has no effect with kind=rw; leave it out, or choose kind=rwrm"),
        ("faal", ["beta=3"], "beta=3.0 has no effect with host=at; leave it out, or choose host=trades or mart."),
        ("ldam", ["beta=0.9"], "beta=0.9 has no effect with drw_start=none; leave it out, or choose another"),
        ("robal", ["evaluate_at=official", "test_scale=5"], "with test_scale=5.0; leave it out, or choose test_scale="),
        ("erm", ["attack.steps=5"], "erm trains without an attack, so attack.steps would change nothing; leave it"),
        ("erm --plugin robustlt", [], "erm trains without an attack, so robustlt would change nothing; leave it out."),
        ("at --plugin swa", ["swa.rule=mean", "swa.decay=0.5"], "swa: decay=0.5 has no effect with rule=mean"),
    ],
)  # fmt: skip
def test_it_is_refused_in_one_line_before_anything_is_computed(capsys, tmp_path, monkeypatch, method, given, says):
    monkeypatch.chdir(tmp_path)
    settings = [word for one in given for word in ("--set", one)]
    assert main(["run", "--method", *method.split(), "--dataset", "digits-lt", *settings]) == 2
    written = capsys.readouterr()
    assert says in written.err and written.err.count("\n") == 1 and not written.out
    assert not list(tmp_path.iterdir())


def test_a_default_may_be_written_out_and_a_run_asked_for_again():
    """Finished runs hold all options, those that do nothing at their defaults, and each track has its own."""
    plain = Request("mail", "digits-lt", settings={"host": "at"}).to_plan()
    spelled = Request("mail", "digits-lt", settings={"host": "at", "beta": "5"}).to_plan()
    assert plain.run.key() == spelled.run.key() == Request.of(plain.run).to_plan().run.key()
    paper = {"step": "largest", "kind": "rw"}
    assert Request("frl", "digits-lt", settings=paper, track="paper").to_plan().run.options["step"] == "largest"
    with pytest.raises(UsageError, match="step=largest has no effect with kind=rw"):
        Request("frl", "digits-lt", settings=paper).to_plan()


def test_a_plug_in_of_the_attack_may_be_around_a_helper_that_is_not_attacked():
    assert Request("hat", "digits-lt", plugins=("robustlt",)).to_plan().base.run.plugins == ["robustlt"]


def test_show_says_what_it_builds_on(capsys):
    assert main(["show", "hat"]) == 0
    shown = capsys.readouterr().out
    assert "Builds on a finished run of erm, which stays as it is and teaches it." in shown
    assert "same data, network, seed and plug-ins" in shown and "20% of the budget in track fixed" in shown


def test_show_says_beside_what_it_does_something(capsys):
    assert main(["show", "mail"]) == 0
    shown = capsys.readouterr().out
    assert "weight of TRADES' KL term; only with host=trades\n" in shown
    assert "none: the README's, 0 on TRADES, -0.5 on AT; not with beta=0.0; not with slope=0.0\n" in shown


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"only_with": {"hots": ["at"]}}, "options.beta: 'hots' is no other option"),
        ({"not_with": {"beta": [1]}}, "options.beta: 'beta' is no other option"),
        ({"only_with": {"host": ["mart"]}}, "option host must be one of trades, at, got 'mart'"),
    ],
)
def test_a_card_names_options_and_values_that_it_has(terms, says):
    plain = card_of("mail").model_dump()
    plain["options"]["beta"] |= {"only_with": {}, "not_with": {}} | terms
    with pytest.raises(ValueError, match=says):
        type(card_of("mail")).model_validate(plain)
