"""``ltbench list``, ``show``, ``check`` and the help texts."""

from __future__ import annotations

from importlib import import_module

import click
import pytest
from command_line import call, refused

from ltrobust_bench.cards import card_of, methods, plugins
from ltrobust_bench.cli.main import VERBS


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("methods", ["at", "trades", "robal", "reat", "at-bsl"]),
        ("datasets", ["digits-lt", "cifar10-lt", "cifar100-lt", "fashion-mnist-lt"]),
        ("models", ["resnet18", "preact-resnet18", "wrn-28-10", "wrn-34-10", "small"]),
        ("attacks", ["fgsm", "pgd", "cw", "mim", "scaled-pgd", "autoattack"]),
        ("protocols", ["ltr-linf-v1", "digits-v0", "smoke"]),
    ],
)
def test_list(capsys, kind, some):
    code, out, _ = call(capsys, "list", kind)
    names = {line.split()[0] for line in out.splitlines()}
    assert code == 0 and set(some) <= names


@pytest.mark.parametrize("slug", [*methods.names(), *plugins.names()])
def test_show_has_everything_of_the_card(capsys, slug):
    card = card_of(slug)
    code, out, _ = call(capsys, "show", slug)
    assert code == 0
    for text in (card.paper.title, card.paper.bibtex.strip(), card.recipe_source, *card.deviations, *card.quirks):
        assert text in out
    assert all(f"  {name} (" in out for name in card.options)
    assert card.claims_note in out and all(f"{c.value:g} {c.metric}" in out and c.source in out for c in card.claims)


def test_show_sets_the_two_recipes_side_by_side(capsys):
    lines = call(capsys, "show", "robal")[1].splitlines()
    settings = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ") and len(line.split()) > 1}
    assert settings["attack.start"] == ["uniform", "one_sided", "*"]
    assert settings["momentum"] == ["0.9", "0.9"]
    assert settings["bn_forwards"] == ["-", "adv", "nat", "nat", "adv", "*"]
    assert "  switch optimizer: sgd or adam or adamw" in lines


def test_check_passes_and_fails_with_its_exit_code(capsys, monkeypatch):
    code, out, _ = call(capsys, "check", "at")
    assert code == 0 and "passes all" in out
    from ltrobust_bench.contribute import conformance

    monkeypatch.setitem(conformance.CHECKS, "card is complete", lambda subject: ["something is missing"])
    code, out, _ = call(capsys, "check", "at")
    assert code == 1 and "FAIL card is complete" in out and "something is missing" in out


def test_unknown_names(capsys):
    assert "'reat'" in refused(capsys, "show", "raet")
    assert "did you mean 'report'" in refused(capsys, "reprot")
    refused(capsys, "list", "things")


def verbs(group=None, path=()):
    """Every command and group, as it is typed."""
    for name in VERBS if group is None else group.commands:
        command = import_module(f"ltrobust_bench.cli.{name}").command if group is None else group.commands[name]
        yield " ".join([*path, name]), isinstance(command, click.Group)
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))


@pytest.mark.parametrize(("verb", "is_group"), [("", True), *verbs()])
def test_help_of_every_verb(capsys, verb, is_group):
    code, out, _ = call(capsys, *verb.split(), "--help")
    assert code == 0 and out.startswith("Usage: ltbench")
    if not is_group:
        assert "Example: ltbench" in out


def test_version(capsys):
    from ltrobust_bench import __version__

    assert __version__ in call(capsys, "--version")[1]
