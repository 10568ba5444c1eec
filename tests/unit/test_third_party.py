"""A package of somebody else adds a method, a plug-in, a data set and a network: ``tests/third_party``, installed as
any other."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from ltrobust_bench.api import Method, Plugin, TrainInfo
from ltrobust_bench.cards import card_of, methods, plugins
from ltrobust_bench.cli.main import main
from ltrobust_bench.data.registry import dataset_spec, datasets, protocol_for
from ltrobust_bench.errors import DataError, UsageError
from ltrobust_bench.models.registry import models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import read_record
from ltrobust_bench.records.rules import RULES, Case
from ltrobust_bench.registry import DuplicateNameError, Registration
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.reproduce import obstacles
from ltrobust_bench.verbs import load_model, run

EXAMPLE = Path(__file__).resolve().parents[1] / "third_party"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What pip makes of the example: its package beside its metadata."""
    source, target = tmp_path_factory.mktemp("source") / "example", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile"]
    subprocess.run([*command, "--target", target, source], check=True)
    return target


@pytest.fixture
def install(monkeypatch):
    """Puts a folder of installed packages on the path; registries read it as a new process would."""

    def put(folder):
        monkeypatch.syspath_prepend(folder)
        for registry in (methods, plugins, datasets, models):
            monkeypatch.setattr(registry, "_entries", {})
            monkeypatch.setattr(registry, "_complete", False)

    yield put
    for name in [n for n in sys.modules if n.partition(".")[0] in ("ltbench_example", "broken")]:
        del sys.modules[name]


@pytest.fixture
def example(site, install):
    install(site)


@pytest.fixture
def broken(tmp_path, install):
    """Installs a package with one entry point and these files."""

    def make(group, name, value, **files):
        (tmp_path / "broken").mkdir()
        for file, text in {"__init__.py": "", **files}.items():
            (tmp_path / "broken" / file.replace("__py", ".py").replace("__toml", ".toml")).write_text(text)
        info = tmp_path / "broken-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
        (info / "entry_points.txt").write_text(f"[ltrobust_bench.{group}]\n{name} = {value}\n")
        install(tmp_path)

    return make


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("methods", "third              Somebody else's method (arXiv 2026)"),
        ("methods", "gentle             Somebody else's plug-in (arXiv 2026)"),
        ("datasets", "third-data         noisy stripes (8x8, grey), drawn when they are read"),
        ("models", "third-net          ltbench-example 0.1 (ltbench_example.net:third_net)"),
    ],
)
def test_listings_show_them_with_their_origin(example, capsys, kind, line):
    assert main(["list", kind]) == 0
    theirs = capsys.readouterr().out.partition("from ltbench-example 0.1:\n")[2].partition("\n\n")[0]
    assert f"  {line}\n" in f"{theirs}\n"
    assert "ltbench_example.net" not in sys.modules and "ltbench_example.third.method" not in sys.modules


def test_its_method_keeps_the_contract(example, capsys):
    assert main(["check", "third"]) == 0, capsys.readouterr().out
    assert card_of("third").title == "Somebody else's method"


def test_its_plug_in_keeps_the_contract_and_goes_around_our_methods(example, tmp_path):
    from ltrobust_bench.contribute.conformance import problems

    assert problems("gentle") == []
    plan = make_plan("reat", "third-data", plugins=("gentle", "awp"), protocol="smoke")
    assert plan.run.plugins == ["awp", "gentle"] and plan.run.options["gentle.least"] == 0.5


@pytest.mark.parametrize("slug", ["widened", "taught", "lagging", "restless"])
def test_every_widened_part_keeps_the_contract_outside_of_the_package(example, slug):
    from ltrobust_bench.contribute.conformance import problems

    assert problems(slug) == []


def test_every_part_of_the_contract_has_a_user_outside_of_the_package(example):
    """A part that is added to the contract fails this until the package of somebody else has it."""
    info = TrainInfo(torch.tensor([9.0, 4.0, 1.0]), "third-data", 2)
    made = [
        methods.get(slug).factory()(card_of(slug).resolve_options("fixed", {}), info) for slug in ("widened", "taught")
    ]
    usual = Method()
    replaced = {
        field.name for each in made for field in fields(Method) if vars(each)[field.name] != vars(usual)[field.name]
    }
    assert {field.name for field in fields(Method)} - replaced == {"inherits"}  # of runs that start from another
    written = {name for slug in ("gentle", "lagging", "restless") for name in vars(type(plugins.get(slug).factory()(
        card_of(slug).resolve_options("fixed", {}), info)))}  # fmt: skip
    assert {name for name, hook in vars(Plugin).items() if callable(hook)} <= written


def test_its_recipe_is_on_the_terms_of_track_paper_and_of_no_other(example):
    fixed, paper = (make_plan("third", "digits-lt", track=track).run for track in ("fixed", "paper"))
    assert (paper.recipe.activation, paper.recipe.label_smoothing, paper.recipe.schedule.kind) == (
        "silu", 0.1, "piecewise",
    )  # fmt: skip
    assert (fixed.recipe.activation, fixed.recipe.label_smoothing) == ("relu", 0.0)
    assert not paper.off_recipe and make_plan("third", "digits-lt", settings={"activation": "silu"}).run.off_recipe


def test_its_teacher_optimiser_and_recalibration_are_a_run_of_its_recipe(example, tmp_path):
    """Track paper: AdamW, batch norm's statistics anew, a teacher trained first; its weight, where it is asked."""
    record = run(
        "taught", "third-data", protocol="smoke", track="paper", epochs=2, limit_test=20,
        runs_dir=tmp_path, results_dir=None, device="cpu",
    )  # fmt: skip
    assert record.run.recipe.optimizer.kind == "adamw" and record.run.recipe.recalibrate_bn == "adversarial"
    assert record.run.base_key is not None and len(list(tmp_path.glob("erm-*/model.safetensors"))) == 1
    case = Case.of(record, None, datetime.now(UTC))
    assert [found for rule in RULES.values() for found in rule(case)] == []
    with pytest.raises(
        UsageError, match="weight=0.9 has no effect with listens=false; leave it out, or choose listens=tr"
    ):
        make_plan("taught", "third-data", protocol="smoke", settings={"listens": "false", "weight": 0.9})


def test_its_extra_data_are_generated_from_the_split_declared_and_trained_on(example, tmp_path, monkeypatch, capsys):
    from ltbench_example.generate import generate

    monkeypatch.chdir(tmp_path)
    generate("third-data", Path("means.npz"))
    terms = ["--kind", "generated", "--saw", "split", "--share", "0.2", "--maker", "class means of the split and noise"]
    assert main(["data", "declare", "third-data", "means.npz", *terms]) == 0
    (shown,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ltbench run")]
    assert main([*shown.split()[1:], "--protocol", "smoke", "--plugin", "gentle", "--device", "cpu"]) == 0
    record = read_record(next(tmp_path.glob("runs/at+gentle-third-data-*/record.json")))
    case = Case.of(record, None, datetime.now(UTC))
    assert [found for rule in RULES.values() for found in rule(case)] == []
    (board,) = boards([record])
    assert record.run.extra.counts == [10] * 4
    assert "extra data" in board.entries[0].flags and "tail leak" not in board.entries[0].flags


def test_its_parts_run_together(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    request = ["--method", "third", "--dataset", "third-data", "--model", "third-net", "--protocol", "smoke"]
    assert main(["run", *request, "--device", "cpu"]) == 0
    (folder,) = tmp_path.glob("runs/third-third-data-ir4-third-net-s0-*")
    assert load_model(folder, device="cpu").model.backbone.features == 8


def test_its_parts_go_with_ours_and_their_records_are_sound(example, tmp_path):
    """Its data set under our method, its method on our data set; the rules about records know its terms."""
    for method, dataset in (("at", "third-data"), ("third", "digits-lt")):
        record = run(
            method, dataset, protocol="smoke", epochs=1, limit_train=80, limit_test=20,
            runs_dir=tmp_path, results_dir=None, device="cpu",
        )  # fmt: skip
        case = Case.of(record, None, datetime.now(UTC))
        assert [found for rule in RULES.values() for found in rule(case)] == []
        (board,) = boards([record])
        assert board.status == "smoke" and board.key.dataset == dataset and not board.messages


def test_a_data_sets_own_terms_are_part_of_the_protocols_digest(example):
    spec, smoke = dataset_spec("third-data"), protocol_for("third-data", "smoke")
    assert make_plan("at", "third-data", protocol="smoke").run.protocol_digest == smoke.digest("third-data")
    wider = spec.terms.model_copy(update={"epsilon": "0.2"})
    other = smoke.model_copy(update={"datasets": {**smoke.datasets, "third-data": wider}})
    assert other.digest("third-data") != smoke.digest("third-data")
    assert smoke.digest("digits-lt") == load_protocol("smoke").digest("digits-lt")
    assert make_task("third-data").protocol.name == "ltr-linf-v1"


def test_nothing_stands_in_the_way_of_repeating_a_run_on_its_data(example):
    assert obstacles(make_plan("at", "third-data", protocol="smoke").run) == []


def test_a_protocols_terms_go_before_the_data_sets_own(example, monkeypatch):
    digits = replace(dataset_spec("digits-lt"), terms=dataset_spec("third-data").terms)
    monkeypatch.setitem(datasets._entries, "digits-lt", Registration("digits-lt", digits))
    assert make_task("digits-lt", protocol="smoke").epsilon == 0.15


SPEC = """
from ltrobust_bench.data import DatasetSpec
DATA = DatasetSpec({name!r}, "", "broken.data:read", classes=2, shape=(1, 8, 8))
def read(folder):
    {body}
"""


def test_a_data_set_without_terms_needs_a_protocol_that_has_them(broken):
    broken("datasets", "mine", "broken.data:DATA", data__py=SPEC.format(name="mine", body="return 1"))
    with pytest.raises(UsageError, match="no protocol covers mine"):
        make_task("mine")
    with pytest.raises(UsageError, match="smoke says nothing about mine"):
        make_task("mine", protocol="smoke")


@pytest.mark.parametrize(
    ("value", "text", "says"),
    [
        ("broken.data:DATA", SPEC.format(name="yours", body="return 1"), "calls itself 'yours'"),
        ("broken.data:read", SPEC.format(name="mine", body="return 1"), "is a function, not a DatasetSpec"),
        ("broken.data:NOTHING", SPEC.format(name="mine", body="return 1"), "no attribute 'NOTHING'"),
        ("broken.data:DATA", "1 / 0", r"broken 2.0 \(broken.data:DATA\) cannot be loaded \(ZeroDivisionError"),
    ],
)
def test_a_data_set_that_cannot_be_had_is_one_line(broken, value, text, says):
    broken("datasets", "mine", value, data__py=text)
    with pytest.raises(UsageError, match=says) as refusal:
        dataset_spec("mine")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("body", ["1 / 0", "return (1, 2)"])
def test_a_reader_that_fails_is_one_line(broken, body):
    broken("datasets", "mine", "broken.data:DATA", data__py=SPEC.format(name="mine", body=body))
    from ltrobust_bench.data.sources import load_source

    with pytest.raises(DataError, match="mine cannot be read") as refusal:
        load_source(dataset_spec("mine"))
    assert "\n" not in str(refusal.value)


def test_a_network_that_does_not_say_its_features_is_refused(broken):
    broken("models", "bare", "broken.net:bare", net__py="import torch\ndef bare(c):\n    return torch.nn.Flatten()\n")
    with pytest.raises(UsageError, match="model bare has no attribute `features`"):
        run("at", "digits-lt", model="bare", protocol="smoke", device="cpu", results_dir=None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "return torch.nn.Conv2d(c, 8, 3)",
            r"cannot be built for images of shape \(1, 8, 8\) \(TypeError.*takes this shape",
        ),
        ("raise UsageError('model int needs more pixels.')", "^model int needs more pixels.$"),
    ],
)
def test_a_network_for_another_shape_is_one_line_before_anything_is_computed(broken, tmp_path, body, says):
    """A factory of the old contract takes the number of channels."""
    net = f"import torch\nfrom ltrobust_bench.errors import UsageError\ndef old(c):\n    {body}\n"
    broken("models", "old", "broken.net:old", net__py=net)
    with pytest.raises(UsageError, match=says) as refusal:
        run("at", "digits-lt", model="old", protocol="smoke", device="cpu", runs_dir=tmp_path, results_dir=None)
    assert "\n" not in str(refusal.value) and not list(tmp_path.glob("*/*.json"))


def test_a_taken_name_is_refused_with_both_sides(broken):
    broken("models", "small", "broken.net:small")
    with pytest.raises(DuplicateNameError, match=r"in ltrobust_bench/models/registry.py and in broken 2.0 \(broken.ne"):
        models.names()


@pytest.mark.parametrize(
    ("value", "card", "says"),
    [
        ("broken.nowhere", "", "must name the one that holds card.toml and method.py"),
        ("broken:method", "", "must name the one that holds card.toml and method.py"),
        ("broken", 'slug = "mine"', "is not a valid card: title"),
        ("broken", (EXAMPLE / "ltbench_example/third/card.toml").read_text(), "says slug 'third'.* says 'mine'"),
    ],
)
def test_a_method_that_cannot_be_read_is_one_line(broken, value, card, says):
    broken("methods", "mine", value, card__toml=textwrap.dedent(card))
    with pytest.raises(UsageError, match=says) as refusal:
        methods.names()
    assert "\n" not in str(refusal.value)


def test_a_plug_in_of_another_package_is_one(broken):
    card = (EXAMPLE / "ltbench_example/third/card.toml").read_text().replace('"third"', '"mine"')
    broken("methods", "mine", "broken", card__toml=f'kind = "plugin"\n{card}')
    assert "mine" in plugins and "mine" not in methods
