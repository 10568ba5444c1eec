"""Backbones: sizes of the published architectures, shapes, and what a deployed model depends on."""

from __future__ import annotations

import pytest
import torch

from ltrobust_bench.api import Network, linear
from ltrobust_bench.errors import UsageError
from ltrobust_bench.models import models

# Parameters with a linear head for 10 classes and 3 channels.
PUBLISHED = {
    "resnet18": 11_173_962,
    "preact-resnet18": 11_172_170,
    "wrn-28-10": 36_479_194,
    "wrn-34-10": 46_160_474,
}


def network(name, shape=(3, 32, 32)):
    backbone = models.get(name)(shape)
    return Network(backbone, linear(backbone.features, 10))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_architecture(name):
    with torch.device("meta"):
        assert sum(p.numel() for p in network(name).parameters()) == PUBLISHED[name]


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32)])
@pytest.mark.parametrize("name", ["small", "resnet18", "preact-resnet18"])
def test_logits_and_features_for_every_image_size(name, channels, size):
    model = network(name, (channels, size, size)).eval()
    x = torch.rand(2, channels, size, size)
    with torch.no_grad():
        logits, features = model.outputs(x)
    assert logits.shape == (2, 10) and features.shape == (2, model.backbone.features)
    assert torch.equal(logits, model(x)) and torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "least"), [("small", 2), ("resnet18", 8), ("preact-resnet18", 8), ("wrn-28-10", 4)])
def test_images_that_are_too_small_are_refused_and_no_others(name, least):
    with torch.device("meta"):
        network(name, (1, least, least + 1))
        with pytest.raises(UsageError, match=f"model {name} needs images of {least}x{least} pixels or more"):
            network(name, (1, least, least - 1))


def test_wide_networks_shrink_space_twice_and_end_in_640_features():
    model = network("wrn-28-10").eval()
    with torch.no_grad():
        assert model.backbone.blocks(model.backbone.conv1(torch.rand(1, 3, 32, 32))).shape == (1, 640, 8, 8)
