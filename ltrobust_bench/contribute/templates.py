"""What :mod:`ltrobust_bench.contribute.scaffold` writes; names with a dollar are filled in."""

from __future__ import annotations

CARD = """\
# What the method is. Listings, `ltbench show $slug` and the boards read it without importing torch.
slug = "$slug"
title = "$title"
summary = "TODO: one sentence, what is trained and how."
group = "long-tailed adversarial training"  # heading in `ltbench list methods`
version = 1                                 # raise it when a change alters options or results
licence_note = "TODO: written from the paper; or adapted from which code, under which licence."
claims_note = "TODO: why no published numbers are listed. Or list them as [[claims]], and remove this line."
recipe_source = "No published recipe: track paper is the protocol's recipe."
deviations = []                             # where it departs from the paper, a sentence each

[paper]
title = "TODO: title of the paper, or of the idea"
authors = "TODO"
venue = "TODO"
year = $year
url = "https://example.org"                 # or arxiv = "2307.10205", or code = "owner/repository"
bibtex = "@misc{$key, title = {TODO}}"

# An option is typed and has a default in each track; method.py reads it as options["tau"].
# [options.tau]                             # ltbench run --set tau=0.5
# type = "float"                            # or int, str, bool
# help = "factor on ln n"
# fixed = 1.0                               # in track fixed: one recipe for everybody
# paper = 1.0                               # in track paper: the authors' recipe
# minimum = 0.0                             # also maximum, choices

# The authors' recipe over the protocol's, for track paper. Pixel-scale numbers are for epsilon 8/255.
# [recipe]
# epochs = 80
# attack = { step_size = "2/255", steps = 10, start = "uniform" }
"""

METHOD = '''\
"""$title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ltrobust_bench.api import Method, Outputs, StepContext, TrainInfo


def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    """What is not named in ``Method`` is that of plain adversarial training.

    Args:
        options: those of card.toml, for instance ``options["tau"]``.
        data: ``counts``, training images per label, float64 [C]; ``ranks`` of the labels, 0 = most images.
    """

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        """What the optimiser descends: a scalar. THIS IS THE FUNCTION TO WRITE.

        Args:
            outputs: ``adversarial`` and ``clean``, each with ``logits`` [B, C] and ``features`` [B, D], computed when
                first asked for.
            y: labels, int64 [B].
            ctx: ``epoch`` from 1 to ``epochs``.
        """
        # Plain adversarial training: return F.cross_entropy(outputs.adversarial.logits, y)
        raise NotImplementedError("the loss of $slug is not written yet: see method.py")

    # The whole contract is ltrobust_bench/api.py; what several methods share is in ltrobust_bench.longtail
    # (balanced_softmax, class_means, CosineHead, ...), and nothing else is imported from ltrobust_bench.
    return Method(
        loss=loss,
        # batch=...          (x, y, ctx) -> (images, targets) before the attack, as for mixing. Default: as drawn
        # objective=...      what the attack climbs: (logits, y, ctx) -> [B]. Default: cross-entropy
        # attack_budget=...  radius and step of the attack per image: (budget, y, ctx) -> budget. Default: the recipe's
        # head=...           (D, C) -> module from features to logits. Default: linear
        # sampler=...        (labels, draws, epoch, generator) -> indices. Default: every image once, shuffled
        # crafts=...         (epoch, epochs) -> whether that epoch has an attack. Default: always
        # trains=...         network -> the parameters to train. Default: all
        # companion=...      head of a second network trained beside, for outputs.companion(images). Default: none
        # deploy=...         (network, data) -> module from pixels to logits at test time. Default: as trained
        # memory=...         {name: what is remembered between steps}, saved in checkpoints. Default: nothing
        # inherits=...       parts that take the weights of the run that the card's base names. Default: all
    )
'''

PLUGIN_CARD = """\
# What the plug-in is. Listings, `ltbench show $slug-plugin` and the boards read it without importing torch.
slug = "$slug-plugin"
title = "$title: plug-in"
summary = "TODO: one sentence, what it changes of any method."
group = "plug-in around any method"
kind = "plugin"
order = 10                                  # plug-ins apply in this order, whatever the command line says
version = 1                                 # raise it when a change alters options or results
licence_note = "TODO: written from the paper; or adapted from which code, under which licence."
claims_note = "TODO: why no published numbers are listed. Or list them as [[claims]], and remove this line."
recipe_source = "A plug-in follows its host's recipe."
deviations = []                             # where it departs from the paper, a sentence each

[paper]
title = "TODO: title of the paper, or of the idea"
authors = "TODO"
venue = "TODO"
year = $year
url = "https://example.org"                 # or arxiv = "2307.10205", or code = "owner/repository"
bibtex = "@misc{$key, title = {TODO}}"
"""

PLUGIN = '''\
"""$title: a plug-in around any method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ltrobust_bench.api import AttackBudget, Plugin, StepContext, TrainInfo


class $class_name(Plugin):
    """Every hook of ``Plugin`` in ltrobust_bench/api.py does nothing unless it is overridden."""

    def attack_budget(self, budget: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        """Another budget for the inner attack. THIS IS THE FUNCTION TO WRITE, or another hook in its place.

        Args:
            budget: ``epsilon``, ``step_size``, ``start``, [0, 1] pixel scale; each one value, or one per image [B].
            y: labels, int64 [B].
            ctx: ``epoch`` from 1 to ``epochs``.
        """
        raise NotImplementedError("the plug-in $slug-plugin is not written yet: see method.py")


def plugin(options: Mapping[str, Any], data: TrainInfo) -> Plugin:
    """The plug-in around any host.

    Args:
        options: those of card.toml.
        data: ``counts``, training images per label, float64 [C]; ``ranks`` of the labels, 0 = most images.
    """
    return $class_name()
'''

METHOD_TEST = '''\
"""The mathematics of $slug: what it computes is the paper's, and without what sets it apart it is not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ltrobust_bench.api import Method, Output, TrainInfo, adversarial
from ltrobust_bench.cards import methods


def built(**options) -> Method:
    data = TrainInfo(torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64), "cifar10-lt", epochs=10)
    method = methods.get("$slug")
    return method.factory()(method.card.resolve_options("fixed", options), data)


def check(method: Method) -> None:
    """THIS IS THE FUNCTION TO WRITE: a value that the official code gave, a worked example, or the formula as loops."""
    logits, y = torch.tensor([[2, 0, 1], [0, 1, 0], [1, 0, 3]], dtype=torch.float64), torch.arange(3)
    outputs = SimpleNamespace(clean=Output(logits / 2, logits), adversarial=Output(logits, logits))
    loss = method.loss(outputs, y, SimpleNamespace(epoch=1, epochs=10))
    # Plain adversarial training: assert loss.item() == pytest.approx(0.376299)
    raise NotImplementedError(f"what the loss of $slug should be here is not written yet; it is {loss.item()}")


@pytest.mark.proves("$slug")
def test_the_formula():
    check(built())


@pytest.mark.mutant("$slug")
@pytest.mark.parametrize("mutant", ["plain cross-entropy"])  # what it lacks, in words
def test_a_mutant_is_caught(mutant):
    with pytest.raises(AssertionError):
        check(replace(built(), loss=adversarial(F.cross_entropy)))
'''

PLUGIN_TEST = '''\
"""The mathematics of $slug-plugin: what it changes is what the paper says, and nothing is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ltrobust_bench.api import AttackBudget, Plugin, TrainInfo
from ltrobust_bench.cards import plugins


def built(**options) -> Plugin:
    data = TrainInfo(torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64), "cifar10-lt", epochs=10)
    plugin = plugins.get("$slug-plugin")
    return plugin.factory()(plugin.card.resolve_options("fixed", options), data)


def check(plugin: Plugin) -> None:
    """THIS IS THE FUNCTION TO WRITE: a value that the official code gave, a worked example, or the formula as loops."""
    given, y = AttackBudget(epsilon=0.03, step_size=0.01, start=0.03), torch.arange(3)
    budget = plugin.attack_budget(given, y, SimpleNamespace(epoch=1, epochs=10))
    # Nothing changed: assert budget == given
    raise NotImplementedError(f"what the budget of $slug-plugin should be here is not written yet; it is {budget}")


@pytest.mark.proves("$slug-plugin")
def test_the_formula():
    check(built())


@pytest.mark.mutant("$slug-plugin")
@pytest.mark.parametrize("mutant", ["nothing changed"])  # what it lacks, in words
def test_a_mutant_is_caught(mutant):
    with pytest.raises(AssertionError):
        check(Plugin())
'''

DATA = '''\
"""$title: a data set. No torch here: listings import this module."""

from __future__ import annotations

from pathlib import Path

from ltrobust_bench.data import DatasetSpec, Source
from ltrobust_bench.protocol import DatasetTerms

$constant = DatasetSpec(
    "$slug-data",
    "$title: its data set",  # one line for listings
    "$data_module:read",
    classes=10,
    shape=(3, 32, 32),  # of one image: channels, height, width
    folder="",  # what must lie in the data folder, for instance "$slug/ with train.npz"; empty: `read` needs none
    terms=DatasetTerms(
        epsilon="8/255",
        imbalance_ratio=50.0,
        profile="exp",
        model="$model",
        crop_padding=4,
        flip=True,
    ),
)


def read(folder: Path | None) -> Source:
    """The whole data set; the long-tailed part is cut from it. THIS IS THE FUNCTION TO WRITE.

    Args:
        folder: the data folder, ``--data-dir`` or LTBENCH_DATA; None if the data set needs none.

    Returns:
        ``Source(train_images, train_labels, test_images, test_labels, class_names)``: images uint8
        [N, channels, height, width], labels int64 [N].
    """
    raise NotImplementedError("the images of $slug-data are not read yet: see $data_file")
'''

NET = '''\
"""$title: a network."""

from __future__ import annotations

from torch import Tensor, nn

from ltrobust_bench.models.registry import Shape


class $net_name(nn.Module):
    """From images [B, channels, height, width] in [0, 1] to features [B, D]; the method adds the head."""

    features = 64  # D

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        # For instance nn.Conv2d(shape[0], self.features, 3, padding=1), nn.BatchNorm2d(self.features), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Features of images, shape [B, D]."""
        return x


def $net_function(shape: Shape) -> nn.Module:
    """The network for images of this shape, (channels, height, width). THIS IS WHAT TO WRITE, with its class."""
    raise NotImplementedError("the network $slug-net is not written yet: see $net_file")
'''

INIT = '"""$title, for ltbench."""\n'

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "ltbench-$slug"
version = "0.1.0"
dependencies = ["ltrobust-bench"]

[tool.hatch.build.targets.wheel]
packages = ["$module"]
"""
