"""SYNTHETIC records for tests: bits from given or drawn class accuracies. Nothing here was ever trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ltrobust_bench.attacks.autoattack import NAMES
from ltrobust_bench.numbers import number
from ltrobust_bench.plan.run import Augmentation, RunSection
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.schema import Cost, Environment, Record, Result, Status, Work
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.scores.reliability import Reliability

TRAIN_COUNTS = [200, 143, 103, 74, 53, 38, 27, 19, 14, 10]


def measured(**changes: object) -> Reliability:
    """What is measured of a network whose gradients do not mislead, but for the changes."""
    usual: dict[str, object] = {
        "images": 200,
        "randomness": 0.0,
        "probabilities": False,
        "confidence": 0.6,
        "zero_gradients": 0.0,
        "accuracy_at_half": 0.0,
        "accuracy_by_radius": {"1": 0.5},
        "batch_dependence": 0.0,
        "state_changed": False,
    }
    return Reliability.model_validate(usual | changes)


def synthetic_record(
    bits: Mapping[str, Sequence[bool]] | None = None,
    *,
    train_counts: Sequence[int] = TRAIN_COUNTS,
    tests_per_class: int = 20,
    accuracy: float = 0.7,
    robustness: float = 0.6,
    created: str = "2026-01-01T00:00:00Z",
    seconds: float = 60.0,
    **run: object,
) -> Record:
    """A synthetic record.

    Args:
        bits: correctness by name, ordered by label; drawn at random for digits-v0's suite if not given.
        accuracy, robustness: for drawn bits, the head's clean accuracy and the share of the correct images
            that survive; both fall towards the tail.
        run: fields of the run section that differ from the defaults.
    """
    classes = len(train_counts)
    seed = run.get("seed", 0)
    if bits is None:
        bits = _draw(classes, tests_per_class, accuracy, robustness, seed)
    tests_per_class = len(bits["clean"]) // classes
    protocol = load_protocol("digits-v0")
    recipe = protocol.training.model_dump()
    recipe["attack"]["epsilon"] = 0.15
    recipe["attack"]["step_size"] = number(recipe["attack"]["step_size"], 0.15)
    section = RunSection.model_validate(
        {
            "protocol": protocol.name,
            "protocol_digest": protocol.digest("digits-lt"),
            "track": "fixed",
            "dataset": "digits-lt",
            "imbalance_ratio": 20.0,
            "profile": "exp",
            "train_counts": list(train_counts),
            "test_counts": [tests_per_class] * classes,
            "train_index_sha256": "a" * 64,
            "test_index_sha256": "b" * 64,
            "method": "synthetic",
            "card_version": 1,
            "options": {},
            "plugins": [],
            "model": "small",
            "seed": 0,
            "epsilon": 0.15,
            "recipe": recipe,
            "augmentation": Augmentation(crop_padding=1, flip=False).model_dump(),
            **run,
        }
    )
    packed = {name: pack(np.asarray(values, dtype=np.uint8), 1) for name, values in bits.items()}
    broken_by = None
    auto = next((name for name in NAMES if name in bits), None)
    if auto is not None:
        broken = np.asarray(bits["clean"], dtype=bool) & ~np.asarray(bits[auto], dtype=bool)
        broken_by = pack(broken.astype(np.uint8), 3)
    digest = Result.digest_of(packed, broken_by)
    result = Result(bits=packed, broken_by=broken_by, weights_sha256="c" * 64, digest=digest)
    return Record(
        schema_version=1,
        run=section,
        result=result,
        cost=Cost(
            training=Work(forwards=1_000_000, backwards=900_000, seconds=seconds),
            evaluation=Work(forwards=10, backwards=5, seconds=1.0),
            optimizer_steps=1000,
        ),
        environment=Environment(
            package_version="0.0.0",
            git_commit=None,
            git_dirty=None,
            python="3.11",
            torch="0",
            pyautoattack=None,
            device="cpu",
            threads=1,
            precision="fp32",
            tf32=False,
            created=created,
        ),
        status=Status(reduced=section.reduced, off_recipe=section.off_recipe, trials=0),
    )


def _draw(classes: int, per_class: int, accuracy: float, robustness: float, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, int(accuracy * 1e6), int(robustness * 1e6)])
    fall = np.repeat(np.linspace(1.0, 0.4, classes), per_class)
    clean = rng.random(len(fall)) < accuracy * fall
    strength = {
        "fgsm": 1.0,
        "pgd-20": 0.9,
        "pgd-100": 0.88,
        "mim-20": 0.9,
        "cw-20": 0.85,
        "scaled-pgd-20": 0.84,
    }
    luck = rng.random(len(fall))
    drawn = {"clean": clean}
    for name, factor in {**strength, "autoattack": 0.8}.items():
        jitter = rng.normal(0, 0.01, len(fall))
        drawn[name] = clean & (luck + jitter < robustness * fall * factor)
    return drawn
