"""Networks of timm and torchvision as backbones."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

import ltrobust_bench as lt
from ltrobust_bench.api import Method, linear
from ltrobust_bench.cards import methods
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.models import ecosystem
from ltrobust_bench.models.ecosystem import patch_side
from ltrobust_bench.models.registry import models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.training.build import build_network, network_of

needs_timm = pytest.mark.skipif(
    find_spec("timm") is None, reason="networks of timm are tested where the extra [timm] is installed"
)


@needs_timm
@pytest.mark.parametrize(
    ("name", "shape", "patch"),
    [
        ("timm:resnet10t", (3, 32, 32), None),
        ("timm:resnet10t", (1, 64, 64), None),
        ("timm:test_vit", (3, 32, 32), 4),
        ("timm:test_vit", (1, 8, 8), 1),
        ("timm:test_vit", (3, 224, 224), 16),
        ("torchvision:resnet18", (3, 64, 64), None),
    ],
)
def test_features_come_out(name, shape, patch):
    torch.manual_seed(0)
    backbone = models.get(name)(shape)
    found = backbone(torch.rand(2, *shape))
    assert found.shape == (2, backbone.features)
    assert found.requires_grad and linear(backbone.features, 5)(found).shape == (2, 5)
    if patch is not None:
        assert backbone.network.patch_embed.patch_size == (patch, patch)
    torch.manual_seed(0)
    again = models.get(name)(shape).parameters()
    assert all((one == two).all() for one, two in zip(backbone.parameters(), again, strict=True)), "the seed decides"


def test_patches_leave_eight_on_a_side():
    assert {side: patch_side(side) for side in (8, 16, 28, 32, 64, 96, 128, 160, 224)} == {
        8: 1, 16: 2, 28: 2, 32: 4, 64: 8, 96: 8, 128: 16, 160: 16, 224: 16,
    }  # fmt: skip


@needs_timm
def test_blocks_are_left_out_in_training_only():
    plan = make_plan("at", "digits-lt", protocol="smoke", model="timm:test_vit", settings={"drop_path": 0.5})
    assert plan.run.overrides == {"drop_path": 0.5} and plan.run.off_recipe
    torch.manual_seed(0)
    network, x = network_of(plan.run, (1, 8, 8), Method()), torch.rand(8, 1, 8, 8)
    assert not torch.equal(network.train()(x), network(x)), "others each time"
    assert torch.equal(network.eval()(x), network(x))
    run = plan.run.model_copy(update={"recipe": plan.run.recipe.model_copy(update={"drop_path": 0.0})})
    plain = network_of(run, (1, 8, 8), Method()).eval()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(plain(x), network(x))
    for model, said in (("small", "networks of timm"), ("timm-vgg11", "vgg11 has no stochastic depth")):
        with pytest.raises(UsageError, match=said):
            build_network(model, (3, 32, 32), 4, Method(), drop_path=0.1)


@pytest.mark.slow
@needs_timm
def test_a_run_with_a_transformer_of_timm(tmp_path):
    small = {"protocol": "smoke", "epochs": 1, "limit_train": 20, "limit_test": 10, "device": "cpu"}
    record = lt.run("at", "digits-lt", model="timm:test_vit", runs_dir=tmp_path, results_dir=None, **small)
    assert record.run.model == "timm-test_vit"
    (folder,) = tmp_path.iterdir()
    assert "timm-test_vit" in folder.name
    loaded = lt.load_model(folder)
    assert loaded.model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert lt.Request.of(record.run).to_plan().run.key() == record.run.key()


def test_what_cannot_be_had_is_one_line(monkeypatch):
    refused = {"timm:resnot18": UnknownNameError, "torchvision:resnot18": UnknownNameError}
    for name, kind in refused.items():
        if name.startswith("timm") and find_spec("timm") is None:
            continue
        with pytest.raises(kind, match="did you mean"):
            models.get(name)((3, 32, 32))
    with pytest.raises(UsageError, match="32x32 pixels or more"):
        models.get("torchvision:resnet18")((3, 16, 16))
    with pytest.raises(UsageError, match="3 channels"):
        models.get("torchvision:resnet18")((1, 32, 32))
    monkeypatch.setattr(ecosystem, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ltrobust-bench\[timm\]"):
        models.get("timm:resnet10t")((3, 32, 32))
    with pytest.raises(UnknownNameError):
        make_plan("at", "digits-lt", model="resnot18")
    assert "timm:resnet18" in models and "resnot" not in models and methods.names()
