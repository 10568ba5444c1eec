"""A batch that passes through a network in parts, so that the activations of one part are in memory at a time.

Behind the network the batch is whole again, so a loss sees all of it, whatever it makes of it: weights of the batch,
class means, distances between images. Gradients come out as they would for the whole batch, up to rounding, with one
exception: batch norm in train mode takes its statistics of a part, and its running ones move once for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

Again = Callable[[], AbstractContextManager[None]]
"""In which a part is computed again."""


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, parts: int, again: Again = nullcontext) -> Tensor:
    """A function of images [B, ...], of at most so many parts of them one by one, put together.

    Under a gradient each part is computed again, in ``again``, when its turn in the backward pass comes.
    """
    if parts < 2 or len(x) < 2:
        return function(x)
    pieces = x.tensor_split(min(parts, len(x)))
    if not torch.is_grad_enabled():
        return torch.cat([function(piece) for piece in pieces])
    contexts = lambda: (nullcontext(), again())  # noqa: E731
    return torch.cat([checkpoint(function, piece, use_reentrant=False, context_fn=contexts) for piece in pieces])


def as_it_was(module: nn.Module) -> Again:
    """A context in which a module computes as it would now, in its present modes, and leaves running statistics alone:
    what they learn of a part, they have learned of it the first time."""
    modules = list(module.modules())
    norms = [one for one in modules if isinstance(one, _BatchNorm)]
    modes = [one.training for one in modules], [norm.track_running_stats for norm in norms]

    @contextmanager
    def again() -> Iterator[None]:
        before = [one.training for one in modules], [norm.track_running_stats for norm in norms]
        buffers = [buffer for norm in norms for buffer in norm.buffers()]
        kept = [buffer.clone() for buffer in buffers]
        _set(modules, norms, *modes)
        try:
            yield
        finally:
            _set(modules, norms, *before)
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.data.copy_(value)  # behind autograd's back, as batch norm itself moves them

    return again


def _set(modules: list[nn.Module], norms: list[_BatchNorm], training: list[bool], tracking: list[bool]) -> None:
    for module, mode in zip(modules, training, strict=True):
        module.training = mode
    for norm, tracked in zip(norms, tracking, strict=True):
        norm.track_running_stats = tracked
