"""Weights that a network of timm or torchvision starts from."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec

import pytest
import torch
from record_factory import synthetic_record
from torch import nn

import ltrobust_bench as lt
from ltrobust_bench.api import Method
from ltrobust_bench.cli.main import ltbench
from ltrobust_bench.errors import CheckpointError, DataError, LTBenchError, UsageError
from ltrobust_bench.models import ecosystem
from ltrobust_bench.models.ecosystem import start_from
from ltrobust_bench.models.pretrained import find_pretrained
from ltrobust_bench.models.registry import models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Silent
from ltrobust_bench.report.aggregate import boards, method_label, on_terms, request_label
from ltrobust_bench.report.reproduce import command
from ltrobust_bench.training.build import network_of
from ltrobust_bench.training.trainer import Session

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="the extra [timm] is not installed")
SMALL = {"protocol": "smoke", "epochs": 1, "limit_train": 20, "limit_test": 10}


@pytest.fixture
def weights(tmp_path):
    """Weights of timm's smallest transformer, with its own classifier, for 160 pixels and three channels."""
    import timm

    torch.manual_seed(3)
    network = timm.create_model("test_vit", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    return network, tmp_path / "vit.pth"


def plan_with(path, **more):
    return make_plan("at", "digits-lt", model="timm:test_vit", pretrained=str(path), **SMALL, **more)


@needs_timm
def test_a_transformer_starts_from_a_file_resampled_to_the_images(weights, tmp_path):
    network, path = weights
    plan = plan_with(path)
    assert plan.run.pretrained.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    began = Session(plan, tmp_path / "run", torch.device("cpu"), Silent(), None).trainee.network
    theirs, ours = network.state_dict(), began.backbone.network.state_dict()
    apart = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert apart == {"patch_embed.proj.weight", "pos_embed"}, "patches of 1 pixel, one channel, 8x8 of them"
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - apart)
    other = make_plan("at", "digits-lt", model="timm:test_vit", **SMALL)
    fresh = Session(other, tmp_path / "other", torch.device("cpu"), Silent(), None).trainee.network
    assert not torch.equal(fresh.backbone.network.state_dict()["cls_token"], ours["cls_token"])
    assert torch.equal(fresh.head.weight, began.head.weight), "the head's start is the seed's, whatever is loaded"


@needs_timm
def test_images_are_normalised_inside(weights):
    plan = plan_with(weights[1])
    assert (plan.run.pretrained.mean, plan.run.pretrained.std) == ([0.5], [0.5])
    network, x = network_of(plan.run, (1, 8, 8), Method()).eval(), torch.rand(3, 1, 8, 8)
    assert torch.equal(network.backbone(x), network.backbone.network((x - 0.5) / 0.5))
    assert not {"backbone.mean", "backbone.std"} & network.state_dict().keys(), "they are the run's, not learned"
    assert ecosystem.normalisation("timm", "resnet18", 3) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert ecosystem.normalisation("torchvision", "resnet18", 3) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@needs_timm
def test_the_weights_are_part_of_the_run(weights, tmp_path):
    run, without = plan_with(weights[1]).run, make_plan("at", "digits-lt", model="timm:test_vit", **SMALL).run
    assert run.key() != without.key() and "pretrained" not in without.model_dump(exclude_defaults=True)
    assert RunSection.model_validate_json(run.model_dump_json()) == run
    changed = {name: value + 1 for name, value in weights[0].state_dict().items()}
    torch.save(changed, tmp_path / "other.pth")
    assert plan_with(tmp_path / "other.pth").run.key() != run.key()
    again = Request.of(run)
    assert again.pretrained == "vit.pth" and again.to_plan(tmp_path).run.key() == run.key(), "found in the data folder"
    asked = Request("at", "digits-lt", model="timm:test_vit", pretrained=str(weights[1]), **SMALL)
    assert request_label(asked) == method_label(run) == "at (pretrained=vit.pth)"
    with pytest.raises(ValueError, match="networks of timm and torchvision"):
        RunSection.model_validate(run.model_dump() | {"model": "small"})


def test_it_counts_as_extra_data():
    terms = {"source": "hub", "name": "timm/x", "sha256": "d" * 64, "mean": [0.5], "std": [0.5]}
    begun = [synthetic_record(robustness=0.9, seed=seed, model="timm-x", pretrained=terms) for seed in range(3)]
    fresh = [synthetic_record(robustness=0.2, seed=seed, model="timm-x") for seed in range(3)]
    (board,) = boards([*begun, *fresh])
    first, second = board.entries
    assert (first.label, first.rank, second.rank) == ("synthetic (pretrained=hub)", None, 1)
    assert {"extra data", "tail leak"} <= set(first.flags) and not on_terms(first) and on_terms(second)
    assert begun[0].run.beyond == "weights timm/x (dddddddddddd), saw unknown" and fresh[0].run.beyond is None
    assert "--pretrained hub" in command(begun)


@pytest.mark.slow
@needs_timm
def test_a_run_that_starts_from_weights_and_forgets_their_file(weights, tmp_path):
    where = {"runs_dir": tmp_path / "runs", "results_dir": None, "device": "cpu"}
    lt.run("at", "digits-lt", model="timm:test_vit", pretrained=str(weights[1]), **SMALL, **where)
    weights[1].unlink()  # a finished run needs the file no more
    (folder,) = (tmp_path / "runs").iterdir()
    loaded = lt.load_model(folder)
    assert loaded.model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert loaded.model.backbone.normalises and loaded.task().classes == 10


@needs_timm
def test_a_file_that_changed_since_the_plan_is_refused(weights, tmp_path):
    plan = plan_with(weights[1])
    weights[1].write_bytes(weights[1].read_bytes() + b" ")
    with pytest.raises(DataError, match="changed after the run was planned"):
        Session(plan, tmp_path / "run", torch.device("cpu"), Silent(), None)


def test_torchvision_loads_all_but_the_classifier(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(5)
    theirs, path = resnet18(weights=None).state_dict(), tmp_path / "r.pth"
    backbone = models.get("torchvision:resnet18")((3, 32, 32))

    def load():
        torch.save(theirs, path)
        terms, file = find_pretrained(str(path), "torchvision-resnet18", 3, None)
        start_from(backbone, "torchvision-resnet18", file, terms)

    load()
    ours = backbone.network.state_dict()
    assert ours.keys() == theirs.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    del theirs["layer4.1.conv2.weight"]
    with pytest.raises(CheckpointError, match=r"layer4.1.conv2.weight"):
        load()


@pytest.mark.slow
def test_positions_of_torchvisions_transformer_are_resampled(tmp_path):
    from torchvision.models import vit_b_32

    torch.manual_seed(6)
    theirs, path = vit_b_32(weights=None).state_dict(), tmp_path / "v.pth"
    torch.save(theirs, path)
    backbone = models.get("torchvision:vit_b_32")((3, 96, 96))
    start_from(backbone, "torchvision-vit_b_32", *reversed(find_pretrained(str(path), "torchvision-vit_b_32", 3, None)))
    ours = backbone.network.state_dict()
    assert ours["encoder.pos_embedding"].shape == (1, 1 + 9, 768) != theirs["encoder.pos_embedding"].shape
    assert torch.equal(ours["conv_proj.weight"], theirs["conv_proj.weight"])


def refusal(**fields):
    with pytest.raises(LTBenchError) as error:
        make_plan("at", "digits-lt", **fields)
    return str(error.value)


@needs_timm
def test_what_cannot_be_started_from_is_one_line(weights, tmp_path, monkeypatch):
    assert "add --model timm:NAME" in refusal(pretrained="hub")
    assert "no file none.pth" in refusal(model="timm:test_vit", pretrained="none.pth")
    named = weights[1].rename(tmp_path / "vit-0123abcd.pth")
    assert "its name says 0123abcd" in refusal(model="timm:test_vit", pretrained=str(named))
    dated = named.rename(tmp_path / "vit-20261128.pth")
    plan = plan_with(dated)
    torch.save({"conv.weight": torch.zeros(1)}, dated)
    plan = plan_with(dated)
    with pytest.raises(CheckpointError, match="do not fit timm:test_vit"):
        start_from(models.get("timm:test_vit")((1, 8, 8)), "timm-test_vit", dated, plan.run.pretrained)
    torch.save(nn.Linear(2, 2), dated)
    plan = plan_with(dated)
    with pytest.raises(CheckpointError, match="pickled code"):
        start_from(models.get("timm:test_vit")((1, 8, 8)), "timm-test_vit", dated, plan.run.pretrained)


@needs_timm
def test_a_missing_network_is_one_line_and_the_hub_is_verified(weights, tmp_path, monkeypatch):
    def nobody(*_, **__):
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr("torch.hub.download_url_to_file", nobody)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", nobody)
    said = refusal(model="timm:resnet18", pretrained="hub")
    assert "cannot be fetched (Name or service not known): fetch timm/resnet18.a1_in1k" in said
    assert "resnet18-f37072fd.pth" in _said_of_torchvision()

    def fetched(url, file, progress):
        torch.save(weights[0].state_dict(), file)

    def cached(repository, file, local_files_only=False):
        blob = tmp_path / ("e" * 64)  # as its cache calls a file, by its digest
        torch.save(weights[0].state_dict(), blob)
        (tmp_path / file).symlink_to(blob)
        return str(tmp_path / file)

    monkeypatch.setattr("torch.hub.download_url_to_file", fetched)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", cached)
    assert "its name says eeeeeeeeeeee" in refusal(model="timm:resnet18", pretrained="hub")
    assert "its name says f37072fd" in _said_of_torchvision(), "what was fetched is not what the name says"
    assert "no weights for" in refusal(model="timm:vit_base_patch16_gap_224", pretrained="hub")


def _said_of_torchvision():
    with pytest.raises(UsageError) as error:
        find_pretrained("hub", "torchvision-resnet18", 3, None)
    return str(error.value)


@needs_timm
def test_the_plan_says_what_it_starts_from(weights, capsys):
    words = ["run", "-m", "at", "-d", "digits-lt", "--protocol", "smoke", "--model", "timm:test_vit", "--dry-run"]
    words += ["--pretrained", str(weights[1]), "--epochs", "1", "--device", "cpu"]
    ltbench.main(words, standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "starts from vit.pth (SHA-256 " in said and "extra data, without a rank" in said
    assert "mean 0.5, deviation 0.5" in said
