"""What is looked at before a model that is not ours is attacked, and once more afterwards: does it take [0, 1] pixels
and return logits, in float32, that depend on the image alone?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.errors import CheckFailed, UsageError
from ltrobust_bench.evaluation.blame import blamed
from ltrobust_bench.evaluation.examine import batch_dependence, logits_of, randomness
from ltrobust_bench.scores.reliability import MEANINGS, NOISE, Flag, moving

Constants = tuple[Sequence[float], Sequence[float]]

NORMALISATIONS: dict[str, Constants] = {
    "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-10's mean and mean std of images": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR-100's mean and std": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "MNIST's mean and std": ((0.1307,), (0.3081,)),
    "Fashion-MNIST's mean and std": ((0.2860,), (0.3530,)),
    "mean 0.5 and std 0.5": ((0.5,), (0.5,)),
    "pixels from 0 to 255": ((0.0,), (1 / 255,)),
}
"""What models are commonly trained with: (x - mean) / std of pixels in [0, 1]."""
OWN = "the images' own mean and std"
CLEAR, ERRORS, LIKELY = 0.1, 3.0, 2.5
"""By how much the accuracy on normalised images must be higher, and by how many standard errors of the paired
difference, for a model to be refused: none that takes [0, 1] gains so much. ``LIKELY`` standard errors are said."""
NORMALISED = "normalised input"
HALF = "half precision"
MEANT = {
    NORMALISED: "the model seems to want normalised input: put the normalisation inside it, or use --normalise",
    HALF: "a part of the forward is not float32: gradients vanish and logits tie by rounding",
}
"""Flags that are raised for models that are not ours only, and what they mean."""
NARROW = (torch.float16, torch.bfloat16)


class Normalised(nn.Module):
    """A model that wants normalised input, as one that takes pixels in [0, 1].

    Args:
        model: from (x - mean) / std to logits.
        mean, std: of each channel, or one for all, on the [0, 1] scale.
        channels: of the images.

    Raises:
        UsageError: if there are neither one nor as many numbers as channels, or a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], channels: int) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
                raise UsageError(f"normalise: {name} has {len(values)} numbers; 1 or {channels} are needed.")
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))
        if min(std) <= 0:
            raise UsageError("normalise: a standard deviation must be positive.")
        if max(std) > 1 or max(map(abs, mean)) > 1:
            raise UsageError("normalise: mean and std are on the [0, 1] scale; divide those of 0 to 255 by 255.")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits


class Attached(nn.Module):
    """A model whose logits depend on the image for autograd, too: where they do not, their gradient is 0.

    So a model whose forward detaches, leaves torch or forbids gradients is attacked like one whose gradients vanish,
    and gets its flag. Logits and gradients of any other model are what they were.

    Args:
        model: pixels [B, channels, height, width] to logits [B, C].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return logits
        return logits.clone() + 0 * x.flatten(1).sum(dim=1, keepdim=True).to(logits.dtype)


def checked_logits(model: nn.Module, x: Tensor, classes: int) -> Tensor:
    """The model's logits for ``x`` [B, channels, height, width], shape [B, C].

    Raises:
        CheckFailed: saying what came instead.
    """
    version = x._version
    with blamed(f"on images of shape {tuple(x.shape)}", only=True), torch.no_grad():
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.shape != (len(x), classes):
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CheckFailed(
            f"the model returned {seen} for {len(x)} images; logits of shape ({len(x)}, {classes}) are needed."
        )
    if not logits.is_floating_point():
        raise CheckFailed(f"the model returned numbers of type {logits.dtype}; floating-point logits are needed.")
    if not torch.isfinite(logits).all():
        raise CheckFailed("the model returned NaN or infinite logits for images in [0, 1].")
    if x._version != version:
        raise CheckFailed("the model writes into the images that it is given (in-place); compute x = x - mean instead.")
    return logits


@dataclass(frozen=True)
class Look:
    """What a model that is not ours looked like before it was attacked.

    Attributes:
        flags: what is odd about it.
        on: the model.
        x: some test images, [B, channels, height, width].
        size: images of a batch.
        logits: its answers to ``x``, [B, C].
    """

    flags: tuple[Flag, ...]
    on: Target
    x: Tensor
    size: int
    logits: Tensor

    def again(self) -> tuple[Flag, ...]:
        """The flags, and one more if its answers have changed since; nothing is said of answers that are random
        anyway."""
        if any(flag.name == "random" for flag in self.flags):
            return self.flags
        spread = (self.logits.max() - self.logits.min()).clamp_min(1e-12)
        changed = float((logits_of(self.on.model, self.x, self.size) - self.logits).abs().max() / spread)
        if changed <= NOISE:
            return self.flags
        return (*self.flags, Flag("state", f"logits changed by {changed:.2g} of their range", MEANINGS["state"]))


def look(on: Target, x: Tensor, y: Tensor, size: int) -> Look:
    """A look at a model that is not ours.

    Args:
        on: the model, pixels to logits, in eval mode where it has one.
        x, y: some test images [B, channels, height, width] and their labels [B].
        size: images of a batch.

    Raises:
        CheckFailed: if its output is none, or it is far better on normalised images.
    """
    wanted = check_takes_pixels(on.model, x, y, on.classes)
    moves = moving(randomness(on, x, y, size), batch_dependence(on, x, y, size), False)
    flags = [flag for flag in (wanted, _in_half(on.model, x[:2])) if flag is not None]
    flags += [Flag(name, seen, MEANINGS[name]) for name, seen in moves.items()]
    return Look(tuple(flags), on, x, size, logits_of(on.model, x, size))


def check_takes_pixels(model: nn.Module, x: Tensor, y: Tensor, classes: int) -> Flag | None:
    """See that a model takes pixels in [0, 1] as they are.

    Args:
        model: pixels to logits, in eval mode.
        x, y: some test images [B, channels, height, width] and their labels [B].
        classes: C.

    Returns:
        A flag with the figures, if it does somewhat better on normalised images.

    Raises:
        CheckFailed: if its output is none, or it is far better on normalised images.
    """

    def correct(images: Tensor) -> Tensor:
        return checked_logits(model, images, classes).argmax(dim=1) == y

    plain, best, most, clear = correct(x), "", 0.0, False
    for name, (mean, std) in _constants(x):
        shift, scale = (torch.tensor(v, dtype=x.dtype, device=x.device).view(1, -1, 1, 1) for v in (mean, std))
        try:
            normalised = correct((x - shift) / scale)
        except CheckFailed:  # a model need not take what it was not asked to take
            continue
        won, lost = int((normalised & ~plain).sum()), int((plain & ~normalised).sum())
        share, error = float(normalised.float().mean()), math.sqrt(won + lost)
        if won - lost > LIKELY * error and share > most:
            best, most, clear = name, share, won - lost > max(CLEAR * len(x), ERRORS * error)
    if not best:
        return None
    seen = f"{float(plain.float().mean()):.1%} of {len(x)} images are right on pixels in [0, 1], {most:.1%} with {best}"
    if clear:
        raise CheckFailed(
            f"the model needs normalised input: {seen}; put the normalisation inside the model, or use --normalise."
        )
    return Flag(NORMALISED, seen, MEANT[NORMALISED])


def _constants(x: Tensor) -> Iterator[tuple[str, Constants]]:
    """Means and standard deviations that fit the images' channels, the images' own first."""
    flat = x.transpose(0, 1).flatten(1)
    own = tuple(flat.mean(dim=1).tolist()), tuple(flat.std(dim=1).clamp_min(1e-3).tolist())
    yield OWN, own
    for name, constants in NORMALISATIONS.items():
        if len(constants[0]) in (1, x.shape[1]):
            yield name, constants


class _Types(TorchDispatchMode):
    """Notes the types of what operations compute."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set[torch.dtype]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        parts = result if isinstance(result, (tuple, list)) else (result,)
        self.seen |= {part.dtype for part in parts if isinstance(part, Tensor)}
        return result


def _in_half(model: nn.Module, x: Tensor) -> Flag | None:
    """Whether a forward computes something in half precision."""
    types = _Types()
    try:
        with torch.no_grad(), types:
            types.seen.add(model(x).dtype)
    except Exception:  # it works without being watched: it was asked before
        return None
    narrow = [str(kind).removeprefix("torch.") for kind in NARROW if kind in types.seen]
    return Flag(HALF, f"the forward computes in {' and '.join(narrow)}", MEANT[HALF]) if narrow else None
