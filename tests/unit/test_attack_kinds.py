"""A kind of attack is one file: what a protocol may state of it, and that a new one needs nothing else."""

from __future__ import annotations

import re
import textwrap

import pytest
import torch
from pydantic import ValidationError

from ltrobust_bench import attacks as package
from ltrobust_bench import verbs
from ltrobust_bench.attacks.ball import LINF
from ltrobust_bench.attacks.registry import attacks, read_attack, standard_attacks
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.cli.main import main
from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol import Protocol, load_protocol, protocols
from ltrobust_bench.protocol.load import PROTOCOL_FILES, read_protocol

PGD = {"name": "pgd-20", "kind": "pgd", "steps": 20, "step_size": "epsilon/4", "start": "uniform", "restarts": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "pdg"}, "unknown attack 'pdg': did you mean 'pgd'"),
        ({"kind": None}, "states name, kind .known: apgd-ce, .*transfer. and its arguments"),
        ({"restarts": None}, "'pgd-20' of kind 'pgd' .* without restarts, needs exactly restarts, start, step_size"),
        ({"kappa": 0.0}, "'pgd-20' of kind 'pgd' .* with kappa, needs exactly"),
        ({"steps": "many"}, "'pgd-20' of kind 'pgd': steps: Input should be a valid integer .got 'many'"),
        ({"steps": -1}, "steps: .* greater than or equal to 0"),
        ({"step_size": "epsilon//4"}, "step_size: .*write 0.03, 8/255, epsilon/4"),
        ({"step_size": -0.1}, "step_size: .*must be at least 0"),
        ({"restarts": 0}, "restarts: .* greater than or equal to 1"),
        ({"start": "random"}, "start: .* 'none', 'uniform'"),
    ],
)
def test_a_mistake_names_attack_argument_and_what_is_wanted(tmp_path, change, says):
    stated = {k: v for k, v in (PGD | change).items() if v is not None}
    with pytest.raises(UsageError, match=says):
        read_attack(stated)
    protocol = load_protocol("smoke").model_dump()
    protocol["evaluation"]["attacks"] = [stated]
    with pytest.raises(ValidationError, match=says):
        Protocol.model_validate(protocol)


@pytest.mark.parametrize("name", protocols.names())
def test_a_protocol_keeps_every_argument_of_its_attacks(name):
    """Each is of its own kind, and written out and read again it is the same."""
    protocol = load_protocol(name)
    for attack in protocol.evaluation.attacks:
        assert type(attack) is attacks.get(attack.kind)
    assert Protocol.model_validate(protocol.model_dump()) == protocol


def test_an_attack_for_more_classes_than_there_are_is_refused_before_anything_is_computed():
    target = Target(torch.nn.Identity(), 2, 0.1, LINF, 0, "cpu")
    for name, attack in standard_attacks().items():
        if name == "apgd-dlr":
            with pytest.raises(UsageError, match="apgd-dlr needs at least 3 classes, the model has 2"):
                attack.stages(target)
        else:
            assert attack.stages(target)


@pytest.fixture
def errand(root, tmp_path, monkeypatch):
    """What CONTRIBUTING says of a new attack, followed: its file in the folder of attacks, its lines in a protocol."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source, lines = (
        re.search(rf"```{language}\n(# {place}.*?)```", text, re.S)[1]
        for language, place in (("python", "ltrobust_bench/attacks/"), ("toml", "ltrobust_bench/protocol/"))
    )
    file = re.match(r"# ltrobust_bench/attacks/(\w+)\.py", source)[1]
    folder = tmp_path / "attacks"
    folder.mkdir()
    (folder / f"{file}.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    monkeypatch.setattr(attacks, "_entries", {})
    monkeypatch.setattr(attacks, "_complete", False)
    smoke = (PROTOCOL_FILES / "smoke.toml").read_text(encoding="utf-8")
    changed = smoke.replace("[datasets.cifar10-lt]", f"{lines}\n[datasets.cifar10-lt]", 1)
    changed = changed.replace('name = "smoke"', 'name = "errand"')
    place = tmp_path / "errand.toml"
    place.write_text(changed, encoding="utf-8")
    monkeypatch.setattr(protocols, "_entries", {**protocols._entries})
    protocols.names()
    protocols._entries["errand"] = type(protocols.entry("smoke"))("errand", place)
    return file.replace("_", "-"), re.search(r'name = "(.*?)"', lines)[1]


def test_a_new_attack_is_one_file_and_lines_of_a_protocol(errand, tmp_path, capsys):
    """It is listed, read, its cost is known, it runs beside the others, and a record holds its bits."""
    kind, name = errand
    assert main(["list", "attacks"]) == 0 and f"{kind} " in capsys.readouterr().out
    attack = next(a for a in load_protocol("errand").evaluation.attacks if a.name == name)
    assert attack.kind == kind and attack.passes(10) > 0
    outcome = verbs.run(
        "at", "digits-lt", protocol="errand", limit_test=50, runs_dir=tmp_path, results_dir=None, device="cpu"
    )
    assert name in outcome.attacks and outcome.bits(name).sum() <= outcome.bits("clean").sum()
    assert outcome.bits("clean").sum() > 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", r"attacks/odd_one\.py must define one subclass of Attack, it defines 0"),
        (
            """
            from typing import Literal
            from ltrobust_bench.attacks.terms import Attack
            class Odd(Attack):
                kind: Literal["odd"]
            """,
            r'attacks/odd_one\.py: Odd must state kind: Literal\["odd-one"\]',
        ),
    ],
)
def test_a_file_that_is_no_attack_says_so(tmp_path, monkeypatch, source, says):
    monkeypatch.delitem(__import__("sys").modules, "ltrobust_bench.attacks.odd_one", raising=False)
    (tmp_path / "odd_one.py").write_text(textwrap.dedent(source), encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(attacks, "_entries", {})
    monkeypatch.setattr(attacks, "_complete", False)
    with pytest.raises(UsageError, match=says):
        attacks.names()


def test_an_unreadable_protocol_is_one_line(tmp_path):
    path = tmp_path / "bad.toml"
    text = (PROTOCOL_FILES / "smoke.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("steps = 5", 'steps = "5"'), encoding="utf-8")
    with pytest.raises(UsageError, match=r"bad\.toml is not a valid protocol: eval.*\.attacks\.1: .*'pgd-5'.*steps"):
        read_protocol(path)
