"""What is tried against whoever judges a network: by the code of its method, and by what a record says of its code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from board_schemes.tools import JANE, Copy, forged, invented, scheme
from ltrobust_bench.api import Method
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.signing import sign
from ltrobust_bench.training import checkpoint
from ltrobust_bench.training.build import build_network

PATCH = """
def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
    from ltrobust_bench.verbs import verification

    honest = verification.evaluate_images

    def robust(model, data, **given):
        found = honest(model, data, **given)
        found.bits.update({name: bits | True for name, bits in found.bits.items()})
        return found

    verification.evaluate_images = robust
    return Method()
"""


@scheme
def patching_method(copy: Copy) -> None:
    """A merged method patches the evaluator while its network is built; a maintainer verifies its record and signs"""
    with (copy.folder / "baselines" / "at" / "method.py").open("a") as code:
        code.write(PATCH)
    copy.commit()
    commit = copy.git("rev-parse", "HEAD")
    like = copy.of("at")
    network = untrained(like)
    record = forged(like, bits=invented(like), seed=3, weights=checkpoint.weights_sha256(network),
                    environment={"git_commit": commit})  # fmt: skip
    copy.file(record)
    copy.commit()
    copy.git("branch", "--quiet", "--force", "main")
    path = copy.folder.parent / "network.safetensors"
    about = {
        "run": record.run.model_dump(mode="json"),
        "class_names": [str(c) for c in range(10)],
        "cost": {},
        "history": [],
    }
    checkpoint.save_model(path, network, about)
    said = verified_by_jane(copy, record, path)
    statements = set(copy.git("ls-files", "--others", "results/verifications").splitlines())
    if len(statements) != 1:
        raise RuntimeError(f"the maintainer's verification made no statement: {said}")
    sign(copy.folder / statements.pop(), copy.keys / "jane")


def untrained(record: Record) -> dict[str, torch.Tensor]:
    """The tensors of a network that was never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_network(record.run.model, (1, 8, 8), len(record.run.train_counts), Method()).state_dict()


def verified_by_jane(copy: Copy, record: Record, network: Path, *more: object) -> str:
    """What `ltbench record verify` says in the copy, by the copy's code."""
    command = ["record", "verify", copy.path_of(record), "--weights", network, "--by", JANE, "--images", 50,
               "--threads", 1, "--device", "cpu", "--results-dir", copy.results, *more]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "ltrobust_bench", *map(str, command)],
        cwd=copy.folder, env={**os.environ, "PYTHONPATH": str(copy.folder)}, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@scheme
def code_of_another_commit(copy: Copy) -> None:
    """A new seed whose digests of code are not those of the commit that it names"""
    commit, record = copy.git("rev-parse", "main"), copy.of("at")
    session = {"work": "training", "package_version": record.environment.package_version, "commit": commit,
               "dirty": False, "method_sha256": "1" * 64, "package_sha256": "2" * 64}  # fmt: skip
    said = {"git_commit": commit, "code": [session, session | {"work": "evaluation"}]}
    copy.file(forged(record, bits=invented(record), seed=3, environment=said))


@scheme
def board_of_the_same_name(copy: Copy) -> None:
    """Three runs on other images under the best board's terms: a board of the same name, for its address"""
    for seed in range(3):
        record = copy.of("cfa", seed)
        other = {"train_index_sha256": "e" * 64, "test_index_sha256": "d" * 64}
        copy.file(forged(record, bits=invented(record, seed=seed), weights=f"{seed:064x}", seed=seed, **other))
