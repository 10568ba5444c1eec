"""A graph as a module: each operation is called, in order, by code of ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ltrobust_bench.judge.graph import IMAGE, NODE, Node
from ltrobust_bench.judge.operations import call, tensors


class Interpreted(nn.Module):
    """Computes operations, with torch's own gradients.

    Args:
        nodes: checked (:func:`~ltrobust_bench.judge.graph.check_graph`).
        values: weights and constants by their names in the graph.
    """

    def __init__(self, nodes: list[Node], values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._nodes, self._done = nodes, _last_uses(nodes)
        self._named = {name: f"value{number}" for number, name in enumerate(values)}
        for name, value in values.items():
            self.register_buffer(self._named[name], value.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``x`` [B, channels, height, width] in [0, 1], shape [B, C]."""
        found = {IMAGE: x, **{name: self.get_buffer(buffer) for name, buffer in self._named.items()}}
        result = x
        for number, node in enumerate(self._nodes):
            needed = set(tensors(node.op, node.given))
            result = call(node.op, [found[v] if isinstance(v, str) and v in needed else v for v in node.given])
            found[f"{NODE}{number}"] = result
            for name in self._done[number]:  # or all results of a forward would be kept until its end
                del found[name]
        return result


def _last_uses(nodes: list[Node]) -> list[list[str]]:
    """Results that nothing after an operation needs, operation by operation."""
    last: dict[str, int] = {}
    for number, node in enumerate(nodes):
        last |= {name: number for name in tensors(node.op, node.given) if name.startswith(NODE)}
    done: list[list[str]] = [[] for _ in nodes]
    for name, number in last.items():
        done[number].append(name)
    return done
