"""What a record's fields are called on its page, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WORDS = {
    # run
    "dataset": "data set",
    "imbalance_ratio": "imbalance ratio",
    "profile": "how class sizes fall",
    "train_counts": "training images per class",
    "test_counts": "test images per class",
    "card_version": "version of the method's card",
    "model": "network",
    "epsilon": "radius of the attacks",
    "threat_model": "norm of the attacks",
    "augmentation.crop_padding": "random crops, padding in pixels",
    "augmentation.flip": "random horizontal flips",
    "limit_train": "training images, cut by hand to",
    "limit_test": "test images, cut by hand to",
    "overrides": "recipe settings given by hand",
    "policy.crafting": "training attacks climb",
    "policy.memory_format": "layout of tensors in memory",
    "policy.compile": "compiled by torch",
    "holdout": "tested on held-out training images",
    "plugins": "plug-ins",
    "options": "options",
    "extra": "training images beyond the split",
    "extra.saw": "what they or their maker saw of the data set",
    "extra.sha256": "digest of these images",
    "extra.counts": "these images per class",
    "extra.share": "their share of each batch",
    "extra.kind": "their kind",
    "extra.maker": "their maker",
    "extra.name": "their name",
    # recipe
    "batch_size": "batch size",
    "drop_last": "last, smaller batch left out",
    "lr": "learning rate",
    "nesterov": "Nesterov momentum",
    "weight_decay": "weight decay",
    "optimizer.kind": "optimiser",
    "schedule.kind": "learning rate schedule",
    "schedule.each": "rate changes after each",
    "schedule.final": "rate at the end, share of the learning rate",
    "schedule.start": "rate at the start, share of the learning rate",
    "schedule.rise": "share of the budget in which the rate rises",
    "schedule.shape": "shape of its rise and fall",
    "schedule.points": "rate is stated at epochs",
    "schedule.factors": "rate there, share of the learning rate",
    "schedule.milestones": "rate falls after epochs",
    "schedule.of": "in a training of epochs",
    "schedule.gamma": "rate falls by a factor of",
    "schedule.warmup_epochs": "epochs of warm-up",
    "attack.epsilon": "training attack, radius",
    "attack.step_size": "training attack, step size",
    "attack.steps": "training attack, steps",
    "attack.start": "training attack, start",
    "attack.clamp_start": "start cut to the range of pixels",
    "attack.bn_mode": "batch norm while attacking",
    "bn_forwards": "order of forward passes in a step",
    "bn_forwards_after": "forward passes after the step",
    "clean_forward_before": "clean forward pass before the attack",
    "augment": "stronger augmentation",
    "drop_path": "blocks left out in training",
    "accumulate": "parts in which a batch passes",
    "recalibrate_bn": "batch norm's statistics taken anew, on images that are",
    "activation": "activation function",
    "label_smoothing": "label smoothing",
    "on_nan": "if the loss is not finite",
    # cost
    "training.forwards": "training, images passed forward",
    "training.backwards": "training, images passed backward",
    "training.seconds": "training, seconds",
    "evaluation.forwards": "evaluation, images passed forward",
    "evaluation.backwards": "evaluation, images passed backward",
    "evaluation.seconds": "evaluation, seconds",
    "base.forwards": "of the training, the run it builds on: forward",
    "base.backwards": "of the training, the run it builds on: backward",
    "base.seconds": "of the training, the run it builds on: seconds",
    "optimizer_steps": "optimiser steps",
    # environment
    "package_version": "version of ltrobust-bench",
    "git_commit": "commit of the code",
    "git_dirty": "with uncommitted changes",
    "pyautoattack": "pyautoattack",
    "threads": "CPU threads",
    "devices": "devices that worked together",
    "tf32": "TF32 in the verdict",
    "deterministic": "kernels that repeat bit for bit, asked for",
    "created": "finished (UTC)",
    "code": "code of each session",
    "work": "for",
    "commit": "commit",
    "dirty": "with uncommitted changes",
    "package_sha256": "digest of the package",
    "method_sha256": "digest of the method",
    # status
    "reduced": "cut short by hand",
    "off_recipe": "recipe changed by hand",
    "exploded": "loss exploded",
    "trials": "settings tried before this one",
    # reliability
    "images": "images looked at",
    "randomness": "difference of two equal forward passes",
    "probabilities": "outputs are probabilities",
    "confidence": "median confidence",
    "zero_gradients": "share of images without a gradient",
    "accuracy_at_half": "accuracy where every image can become grey",
    "accuracy_by_radius": "accuracy at a multiple of the radius",
    "batch_dependence": "share of labels that depend on the batch",
    "state_changed": "network changed while it was attacked",
    # digests
    "protocol_digest": "protocol",
    "train_index_sha256": "training images",
    "test_index_sha256": "test images",
    "source_sha256": "files of the data set",
    "base_key": "run that it builds on",
}
"""Fields by their names in the record's file."""


def said(values: Mapping[str, Any]) -> dict[str, str]:
    """A section of a record: plain words, and values as text."""
    return {in_words(name): text(value) for name, value in _flat(values)}


def in_words(name: str) -> str:
    """A field's name in plain words; of a name nobody thought of, the name without underscores."""
    if name in WORDS:
        return WORDS[name]
    room, _, rest = name.partition(".")
    if rest and room in WORDS:
        return f"{WORDS[room]}: {rest}"
    return name.replace("_", " ").replace(".", ": ")


def text(value: Any) -> str:
    """A value of a record or card, in words."""
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{in_words(name)} {text(one)}" for name, one in value.items())
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ("; " if isinstance(value[0], Mapping) else " ").join(map(text, value))
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
