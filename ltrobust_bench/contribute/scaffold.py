"""A method's folder to start from: a complete card and a ``method.py`` with one function to write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from ltrobust_bench import baselines
from ltrobust_bench.cards import METHODS_OF_OTHERS, SLUG, methods, plugins
from ltrobust_bench.errors import UsageError
from ltrobust_bench.files import write_text


@dataclass(frozen=True)
class Started:
    """What was begun.

    Attributes:
        method: the file with the function to write.
        written: all files, in the order of writing.
        entry_point: lines that the package's own ``pyproject.toml`` lacks; empty if none.
    """

    method: Path
    written: list[Path]
    entry_point: str = ""


def start_method(slug: str, output: Path | None = None) -> Started:
    """Write the folder of a new method.

    Args:
        slug: its name.
        output: folder of a package to put it in, which gets a ``pyproject.toml`` if it has none; None: the checkout's
            ``baselines/``.

    Raises:
        UsageError: for a name that is none or is taken, an existing folder, or no checkout.
    """
    _refuse_bad_names(slug)
    root = output or baselines.CHECKOUT
    if root is None:
        raise UsageError("there is no checkout to add to: add --output DIR to start it in a package of your own.")
    module = slug.replace("-", "_") if output is None else f"ltbench_{slug.replace('-', '_')}"
    folder = root / module
    if folder.exists():
        raise UsageError(f"{folder} exists and is never overwritten; take another name, for instance {_free(slug)}.")
    terms = {
        "slug": slug,
        "title": slug.replace("-", " ").capitalize(),
        "key": slug.replace("-", ""),
        "year": str(datetime.now(UTC).year),
        "module": module,
        "group": METHODS_OF_OTHERS,
    }
    # The card comes last: a folder without one is no method, so nothing half-written is ever read.
    files = {folder / "method.py": METHOD, folder / "card.toml": CARD}
    entry_point = ""
    if output is not None:
        files = {folder / "__init__.py": INIT, **files}
        if (root / "pyproject.toml").exists():
            table, line = Template(ENTRY_POINT).substitute(terms).splitlines()
            # TOML has a table once: below one that is there, only the line is missing.
            there = table in (root / "pyproject.toml").read_text(encoding="utf-8", errors="replace")
            entry_point = f"{line}  # below {table}\n" if there else f"{table}\n{line}\n"
        else:
            files[root / "pyproject.toml"] = PROJECT + ENTRY_POINT
    for path, text in files.items():
        write_text(path, Template(text).substitute(terms))
    methods.read_again()  # for whoever goes on in the same process
    return Started(folder / "method.py", list(files), entry_point)


def _refuse_bad_names(slug: str) -> None:
    if not re.fullmatch(SLUG, slug):
        plain = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")
        offer = f"; write for instance {plain if not _taken(plain) else _free(plain)}" if plain else ""
        raise UsageError(f"{slug!r} is no name for a method: small letters and digits, joined by dashes{offer}.")
    if _taken(slug):
        origin = (plugins if slug in plugins else methods).entry(slug).origin
        raise UsageError(f"{slug} is taken by {origin}; take another name, for instance {_free(slug)}.")


def _taken(slug: str) -> bool:
    return slug in methods or slug in plugins


def _free(slug: str) -> str:
    number = 2
    while _taken(f"{slug}-{number}"):
        number += 1
    return f"{slug}-{number}"


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
        # objective=...      what the attack climbs: (logits, y, ctx) -> [B]. Default: cross-entropy
        # attack_budget=...  radius and step of the attack per image: (budget, y, ctx) -> budget. Default: the recipe's
        # head=...           (D, C) -> module from features to logits. Default: linear
        # sampler=...        (labels, draws, epoch, generator) -> indices. Default: every image once, shuffled
        # crafts=...         (epoch, epochs) -> whether that epoch has an attack. Default: always
        # trains=...         network -> the parameters to train. Default: all
        # deploy=...         (network, data) -> module from pixels to logits at test time. Default: as trained
        # memory=...         {name: what is remembered between steps}, saved in checkpoints. Default: nothing
        # inherits=...       parts that take the weights of the run that the card's base names. Default: all
    )
'''

INIT = '"""$title, a method for ltbench."""\n'

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

ENTRY_POINT = """\
[project.entry-points."$group"]
$slug = "$module"
"""
