"""Looking at a network: its answers to the test images and to what PGD makes of each of them, and its features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust_bench.api import Network
from ltrobust_bench.attacks.ball import LINF, Ball
from ltrobust_bench.attacks.terms import Target
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.analysis import Answers, Head, HeadKind, Observations
from ltrobust_bench.evaluation.evaluator import craft, frozen
from ltrobust_bench.evaluation.foreign import checked_logits
from ltrobust_bench.progress import Progress
from ltrobust_bench.protocol import Suite

TOLERANCE = 1e-3
"""How far logits may be from those of class vectors, as a share of the largest, and still be called theirs."""


def observe(
    model: nn.Module,
    data: DeviceData,
    *,
    classes: int,
    epsilon: float,
    suite: Suite,
    progress: Progress,
    ball: Ball = LINF,
) -> Observations:
    """Run a network over images, clean and under the suite's first PGD attack (PGD-20 in the full protocols).

    The images that it classifies correctly come first and in the evaluator's batches, so that their verdict is that of
    a record; then the others are attacked, too.

    Args:
        model: deployed: pixels in [0, 1] to logits [B, C], on the device of ``data``.
        data: test images, ordered by (label, index), uint8.
        classes: C.
        epsilon: radius, [0, 1] pixel scale.
        suite: seed, batch size and attacks.
        progress: what to report to.
        ball: the threat model.

    Raises:
        UsageError: if the suite has no PGD attack.
        CheckFailed: if the model's output is no finite [B, C] tensor.
    """
    attack = next((a for a in suite.attacks if a.kind == "pgd"), None)
    if attack is None:
        raise UsageError("the protocol has no PGD attack, under which a network could be analysed.")
    device, total, network = data.images.device, len(data), _network(model)
    climbed = Splitting(model)
    (function,) = attack.stages(Target(climbed, classes, epsilon, ball, suite.seed, device)).values()
    # Row 0: clean, row 1: attacked.
    predicted, margins = torch.empty(2, total, dtype=torch.int64, device=device), torch.empty(2, total, device=device)
    norms, head = torch.empty(total, device=device), None
    with frozen(model):
        with _recorded(network) as features:
            looked = _Looked(model, features)
            looking = Splitting(looked)

            def look(x: Tensor) -> Tensor:
                looked.seen.clear()  # of the batch before, or of parts of this one when it did not fit yet
                return checked_logits(looking, x, classes)

            for index in _batches(torch.arange(total, device=device), suite.batch_size):
                x, y = to_unit(data.images[index]), data.labels[index]
                logits = looking.fit(partial(look, x), len(x))
                predicted[0, index], margins[0, index] = _answers(logits, y)
                if network is not None:
                    of_batch = torch.cat(looked.seen)
                    norms[index] = torch.linalg.vector_norm(of_batch, dim=1)
                    head = head or _head(model, network, x[:1], of_batch, logits)
        right = predicted[0] == data.labels
        progress.note(f"clean accuracy {right.double().mean():.1%} on {total} images")
        progress.start(attack.name, total)
        order = [i for part in (right, ~right) for i in _batches(part.nonzero().squeeze(1), suite.batch_size)]
        for position, index in enumerate(order):
            x, y = to_unit(data.images[index]), data.labels[index]
            adversarial = climbed.fit(partial(craft, attack.name, function, x, y, position, epsilon, ball), len(x))
            logits = climbed.fit(partial(checked_logits, climbed, adversarial, classes), len(x))
            predicted[1, index], margins[1, index] = _answers(logits, y)
            progress.advance(len(index))
    robust = right & (predicted[1] == data.labels)
    progress.note(f"{attack.name} accuracy {robust.double().mean():.1%}")
    clean, attacked = (
        Answers(p.cpu().numpy(), m.double().cpu().numpy()) for p, m in zip(predicted, margins, strict=True)
    )
    own = None if head is None else norms.double().cpu().numpy()
    return Observations(data.labels.cpu().numpy(), clean, attacked, attack.name, own, head)


class _Looked(nn.Module):
    """A model that leaves the features of what passes through it in ``seen``, pass by pass.

    Args:
        model: pixels to logits.
        features: the list to which its backbone's forwards add theirs, see :func:`_recorded`.
    """

    def __init__(self, model: nn.Module, features: list[Tensor]) -> None:
        super().__init__()
        self.model, self.features, self.seen = model, features, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.seen += self.features[-1:]
        self.features.clear()
        return logits


def _batches(index: Tensor, size: int) -> list[Tensor]:
    return list(index.split(size)) if len(index) else []


def _answers(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted label and margin of each image."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    other = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return logits.argmax(dim=1), true - other


def _network(model: nn.Module) -> Network | None:
    """The network inside a deployed model, if there is exactly one."""
    found = [module for module in model.modules() if isinstance(module, Network)]
    return found[0] if len(found) == 1 else None


@contextmanager
def _recorded(network: Network | None) -> Iterator[list[Tensor]]:
    """A list to which every forward adds the features of its images [B, D]."""
    features: list[Tensor] = []
    if network is None:
        yield features
        return
    handle = network.backbone.register_forward_hook(lambda module, given, output: features.append(output))
    try:
        yield features
    finally:
        handle.remove()


class _Given(nn.Module):
    """Stands in for a backbone: the given features, whatever the images."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.features


def _head(model: nn.Module, network: Network, x: Tensor, features: Tensor, logits: Tensor) -> Head:
    """The class vectors of a deployed model, read off its logits at the origin and at the unit features.

    So whatever a deployed form does to the head (scaling, normalising, shifting, in the head or around it) is in them.

    Args:
        x: one image.
        features, logits: of a clean batch, [B, D] and [B, C]; they decide whether the vectors explain the logits.
    """
    width = features.shape[1]
    probes = torch.cat([features.new_zeros(1, width), torch.eye(width, dtype=features.dtype, device=features.device)])
    backbone, network.backbone = network.backbone, _Given(probes)
    try:
        with torch.no_grad():
            probed = model(x.expand(len(probes), -1, -1, -1))
    finally:
        network.backbone = backbone
    without_bias, vectors = logits - probed[0], probed[1:] - probed[0]
    forms: dict[HeadKind, Tensor] = {"linear": features, "cosine": F.normalize(features)}
    near = TOLERANCE * without_bias.abs().max()
    kind = next((k for k, h in forms.items() if (h @ vectors - without_bias).abs().max() <= near), None)
    weight = getattr(network.head, "weight", None)
    rows = weight if isinstance(weight, Tensor) and weight.shape == vectors.T.shape else None
    return Head(
        kind or "other",
        None if kind is None else torch.linalg.vector_norm(vectors, dim=0).cpu().numpy(),
        None if rows is None else torch.linalg.vector_norm(rows, dim=1).cpu().numpy(),
    )
