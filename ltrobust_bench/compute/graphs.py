"""A network's forward and backward as CUDA graphs, which spares an attack the launching of hundreds of kernels.

The kernels are those of the network itself, so a graph is no term of a run: it has no place in a policy or a key. It is
compared with the network at first, and left out for good, in one line, wherever anything is not as it should be.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
Capture = Callable[[Forward, tuple[Tensor, ...]], Forward]
"""(function of a tensor, tensors like those that it will be called with) -> the function, replayed."""
COMPARED = (1, 2, 3, 12, 23, 34)
"""Calls in which the graph is compared with the network: the first ones, and such as find other weights than the graph
was captured with, a step of training having ten calls or so."""
TOLERANCE = 1e-2
"""How far logits and gradient may be from the network's, as a share of their size: kernels that add in any order differ
by far less in float32, and by about half of it in bfloat16."""


class Replayed(nn.Module):
    """A model whose forward and backward are replayed for batches of one size: the largest that it has been given under
    a gradient. Smaller ones (an epoch's last, parts of one that does not fit in memory) it computes itself.

    What it returns is overwritten by the next call, as are the gradients: whoever climbs uses them before that.

    Args:
        model: images [B, channels, height, width] to logits [B, C]; its parameters need no gradient, and change in
            place only.
        say: is told in one line why there is no graph.
        capture: makes the graphs; default: torch's.
    """

    def __init__(self, model: nn.Module, say: Callable[[str], None], capture: Capture | None = None) -> None:
        super().__init__()
        self.model, self._say, self._capture = model, say, capture or torch.cuda.make_graphed_callables
        self._graph: Forward | None = None
        self._images = 0
        self._calls = 0
        self._wanted = True

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        if not (self._wanted and torch.is_grad_enabled() and x.requires_grad and len(x) >= self._images):
            return self._plain(x)
        graph = self._graph if len(x) == self._images else self._captured(x)
        if graph is None:
            return self._plain(x)
        self._calls += 1
        if self._calls in COMPARED and not self._agrees(graph, x):
            return self._plain(x)
        return graph(x)

    def _plain(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def _captured(self, x: Tensor) -> Forward | None:
        """The graph for batches like ``x``; None if there is none."""
        self._images, self._calls, self._graph = len(x), 0, None
        try:
            # A function, not the module: a module would be changed, and its weights be inputs of every call.
            self._graph = self._capture(self._plain, (x.detach().clone().requires_grad_(True),))  # type: ignore[assignment]
        except Exception as error:  # noqa: BLE001 - drivers and kernels refuse in many ways, and nothing depends on it
            self._without(" ".join(str(error).split())[:160] or type(error).__name__)
        return self._graph

    def _agrees(self, graph: Forward, x: Tensor) -> bool:
        """Whether the graph gives the network's logits and gradient for a batch."""
        try:
            wanted, got = _seen(self._plain, x), _seen(graph, x)
        except Exception as error:  # noqa: BLE001 - see above
            self._without(" ".join(str(error).split())[:160] or type(error).__name__)
            return False
        for name, one, other in zip(("logits", "gradient"), wanted, got, strict=True):
            if not one.isfinite().all():
                return True  # the network's own trouble: whoever uses its logits says so
            distance = float((one - other).norm() / one.norm().clamp_min(1e-12))
            if not distance <= TOLERANCE:
                self._without(f"its {name} is off by {distance:.1e} of the network's")
                return False
        return True

    def _without(self, reason: str) -> None:
        self._graph, self._wanted = None, False
        self._say(f"without CUDA graphs while crafting: {reason}")


def _seen(function: Forward, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, C] and the gradient of a weighted sum of them; copies, because a graph overwrites what it gave."""
    images = x.detach().clone().requires_grad_(True)
    logits = function(images)
    weights = torch.linspace(-1, 1, logits[0].numel(), device=logits.device, dtype=logits.dtype)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    return logits.detach().clone(), gradient.clone()
