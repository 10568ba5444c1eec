"""Extensions touch as few files as docs/architecture.md says: each errand is done in a copy of the package, and used.

A new attack is followed in test_attack_kinds.py; a method, data set and network of another package in
test_third_party.py. Those need no file of ours at all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pytest

import ltrobust_bench as lt
from ltrobust_bench.plan.request import Request


class Errand(NamedTuple):
    """What is changed, and what is done with it.

    Attributes:
        edits: text put before an anchor, by file; a file that is not there is made.
        uses: a Python program.
    """

    edits: dict[str, list[tuple[str, str]]]
    uses: str


OPTIMISER = Errand(
    {
        "ltrobust_bench/protocol/optimiser.py": [
            (
                "Optimizer = Annotated[",
                '''class RMSprop(Strict):
    """RMSprop (Hinton, 2012)."""

    kind: Literal["rmsprop"]
    alpha: float = Field(default=0.99, ge=0, lt=1)

    usual: ClassVar[dict[str, Any]] = {}

    def build(self, parameters, lr, weight_decay):
        from torch.optim import RMSprop as Torch

        return Torch(parameters, lr=lr, alpha=self.alpha, weight_decay=weight_decay)


''',
            ),
            ("Sgd | Adam", "RMSprop | "),
        ]
    },
    """
import ltrobust_bench as lt
settings = {"optimizer": "rmsprop", "optimizer.alpha": 0.9, "lr": 0.001}
made = lt.run("at", "digits-lt", protocol="smoke", settings=settings, epochs=1, results_dir=None, device="cpu")
assert made.run.recipe.optimizer.alpha == 0.9 and made.status.off_recipe
""",
)
THREAT_MODEL = Errand(
    {
        "ltrobust_bench/attacks/ball.py": [
            ('"Linf", "L2"]', '"L1", '),
            (
                "BALLS: dict",
                '''class L1(L2):
    """The sum of all changes is at most epsilon."""

    name = "L1"
    tex = r"$\\ell_1$"
    symbol = "L1"

    def on_sphere(self, x, epsilon, generator):
        noise = super().on_sphere(x, 1.0, generator)
        return noise / noise.flatten(1).abs().sum(1).view(-1, 1, 1, 1) * per_image(epsilon, x)

    def steepest(self, gradient):
        flat = gradient.flatten(1)
        best = flat.abs().argmax(dim=1, keepdim=True)
        return flat.new_zeros(flat.shape).scatter_(1, best, flat.gather(1, best).sign()).view_as(gradient)

    def projection(self, x, epsilon):
        """Duchi et al., ICML 2008: all changes shrink by one amount."""

        def back(moved):
            import torch

            change = (moved - x).flatten(1)
            size = change.abs().sort(dim=1, descending=True).values
            radius = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device).reshape(-1, 1)
            excess = (size.cumsum(1) - radius) / torch.arange(1, size.shape[1] + 1, device=x.device)
            last = (size > excess).sum(1, keepdim=True).clamp_min(1) - 1
            less = excess.gather(1, last).clamp_min(0)
            return (x + (change.sign() * (change.abs() - less).clamp_min(0)).view_as(x)).clamp(0, 1)

        return back

    def distance(self, moved, x):
        return (moved.double() - x.double()).flatten(1).abs().sum(dim=1)

    def tolerance(self, pixels, epsilon):
        return ROUNDING * pixels + 2.0**-18 * epsilon

    def grey(self, pixels):
        return 0.5 * pixels


''',
            ),
            (')}\n"""By the name that protocols state."""', ", L1()"),
        ],
    },
    """
from pathlib import Path
import ltrobust_bench as lt
folder = Path("ltrobust_bench/protocol")
text = (folder / "smoke.toml").read_text().replace('"Linf"', '"L1"').replace('"smoke"', '"smoke-l1"', 1)
(folder / "smoke-l1.toml").write_text(text.replace('epsilon = "0.15"', 'epsilon = "2.0"'))
made = lt.run("at", "digits-lt", protocol="smoke-l1", epochs=15, results_dir=None, device="cpu")
assert made.run.threat_model == "L1" and made.bits("pgd-5").sum() < made.bits("clean").sum()
""",
)
NETWORK = Errand(
    {
        "ltrobust_bench/models/pooled.py": [
            (
                "",
                '''"""A linear map of pooled pixels, for the errand."""

from torch import nn


def pooled(shape):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    net.features = 16 * shape[0]
    return net
''',
            )
        ],
        "ltrobust_bench/models/registry.py": [
            (
                '        Registration("resnet18"',
                '        Registration("pooled", f"{base}.pooled:pooled", "pooled pixels", _HERE),\n',
            )
        ],
    },
    """
import ltrobust_bench as lt
made = lt.run("at", "digits-lt", protocol="smoke", model="pooled", epochs=1, results_dir=None, device="cpu")
assert made.run.model == "pooled"
""",
)
DATASET = Errand(
    {
        "ltrobust_bench/data/registry.py": [
            (
                '    DatasetSpec(\n        "cifar10-lt",',
                '    DatasetSpec("wine-lt", "for the errand", f"{_SOURCES}:wine", classes=3, shape=(1, 8, 8)),\n',
            ),
        ],
        "ltrobust_bench/data/sources.py": [
            (
                "def digits(",
                '''def wine(_: Path | None) -> Source:
    """Digits 0 to 2 under another name."""
    source = digits(None)
    parts = []
    for images, labels in (
        (source.train_images, source.train_labels),
        (source.test_images, source.test_labels),
    ):
        parts += [images[labels < 3], labels[labels < 3]]
    return Source(*parts, ("0", "1", "2"))


''',
            )
        ],
        "ltrobust_bench/protocol/smoke.toml": [
            (
                "[datasets.cifar100-lt]",
                """[datasets.wine-lt]
epsilon = "0.15"
imbalance_ratio = 5
profile = "exp"
model = "small"
crop_padding = 1
flip = false

""",
            )
        ],
    },
    """
import ltrobust_bench as lt
made = lt.run("at", "wine-lt", protocol="smoke", epochs=1, results_dir=None, device="cpu")
assert len(made.run.train_counts) == 3
""",
)
COLUMN = Errand(
    {
        "ltrobust_bench/report/columns.py": [
            (
                '        Column("seeds"',
                """        Column(
            "steps", "for the errand", lambda b, e: e.runs[0].cost.optimizer_steps, "Steps", as_it_is("steps")
        ),
""",
            )
        ],
        "ltrobust_bench/report/site/headings.py": [
            ('    Heading("", "", {"Flags"', '    Heading("", "", {"Steps taken": "steps"}),\n'),
        ],
    },
    """
from pathlib import Path
import ltrobust_bench as lt
from ltrobust_bench.report.site import build
made = lt.run("at", "digits-lt", protocol="smoke", epochs=1, runs_dir="counted", results_dir=None, device="cpu")
board = lt.leaderboard("counted")
assert board.to_frame()["steps"].item() == made.cost.optimizer_steps and "| Steps |" in board.markdown()
assert "Steps taken" in build([Path("counted")], "site").index.read_text()
""",
)
VERB = Errand(
    {
        "ltrobust_bench/cli/greet.py": [
            (
                "",
                '''"""``ltbench greet``, for the errand."""

import click

from ltrobust_bench.cli.words import echo


@click.command()
def command() -> None:
    """Greet."""
    echo("hello")
''',
            )
        ],
        "ltrobust_bench/cli/main.py": [('    "doctor":', '    "greet": "for the errand",\n')],
    },
    """
from ltrobust_bench.cli.main import main
assert main(["greet"]) == 0
""",
)
CONTRIBUTING = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
EXECUTOR = Errand(
    {
        "ltrobust_bench/executors/ssh.py": [
            ("", re.findall(r"```python\n(# ltrobust_bench/executors/ssh.*?)```", CONTRIBUTING.read_text(), re.S)[0])
        ]
    },
    """
import os, sys
from pathlib import Path
import ltrobust_bench as lt
from ltrobust_bench.executors.base import Job

# A stranger to ssh that does on this machine what it is told, and jobs that take no time.
Path("bin").mkdir()
Path("bin/ssh").write_text('#!/bin/sh\\ntest "$1" = there && eval "$2"\\n')
Path("bin/ssh").chmod(0o755)
os.environ["PATH"] = os.path.abspath("bin") + os.pathsep + os.environ["PATH"]
results = {"train": "model.safetensors", "evaluate": "record.json"}
Job.command = lambda job: ["touch", str(job.folder / results[job.kind])]
asked = [lt.Request("crt", "digits-lt", protocol="smoke")]
report = lt.sweep(asked, executor="ssh", host="there", results_dir=None, device="cpu")
assert [name.rpartition(".")[2] for name in report.done] == ["train", "train", "evaluate"]
""",
)
ERRANDS = {
    "a threat model": THREAT_MODEL,  # first: it writes a protocol, and these are read once
    "an optimiser": OPTIMISER,
    "a network": NETWORK,
    "a data set": DATASET,
    "a column": COLUMN,
    "a verb": VERB,
    "an executor": EXECUTOR,  # last: it replaces what jobs do
}


def edited(text: str, edits: list[tuple[str, str]]) -> str:
    for anchor, before in edits:
        assert text.count(anchor) >= 1, f"the file has no {anchor!r} any more"
        text = text.replace(anchor, before + anchor, 1)
    return text


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What was done with all errands in one copy of the package, one after the other in one process."""
    root, copy = Path(__file__).resolve().parents[2], tmp_path_factory.mktemp("errands")
    for room in ("ltrobust_bench", "baselines"):
        shutil.copytree(root / room, copy / room)
    for errand in ERRANDS.values():
        for name, edits in errand.edits.items():
            path = copy / name
            old = path.read_text(encoding="utf-8") if path.exists() else ""
            new = edited(old, edits)
            assert new != old
            path.write_text(new, encoding="utf-8")
    uses = "".join(f"{errand.uses}\nprint('did', {what!r})\n" for what, errand in ERRANDS.items())
    here = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", uses], cwd=copy, env=here, capture_output=True, text=True)


@pytest.mark.parametrize("what", ERRANDS)
def test_an_errand_touches_the_files_that_the_document_says(what, root, done):
    assert f"did {what}\n" in done.stdout, done.stderr[-2000:]
    table = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {what} \|(.*)$", table, re.M)
    for name in ERRANDS[what].edits:
        room = name.removeprefix("ltrobust_bench/").rpartition("/")[0]
        assert f"{room}/" in row, f"{name} is not in the document's row of {what}"


def _job(request: Request, runs: str) -> str:
    return lt.run(request, runs_dir=runs, results_dir=None, device="cpu").result.digest


def test_an_executor_needs_no_file_of_ours(tmp_path):
    """A job is a request: it is handed to another process, and the data are read there."""
    job = Request("at", "digits-lt", protocol="smoke", epochs=1, seed=1)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        there = executor.submit(_job, job, str(tmp_path / "there")).result()
    assert there == _job(job, str(tmp_path / "here"))
