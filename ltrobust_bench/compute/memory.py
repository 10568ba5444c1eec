"""Batches that do not fit in memory, passed in parts without changing the mathematics.

In eval mode an image's logits do not depend on the batch, so a batch can be split wherever a network is attacked or
asked for its verdict. In train mode batch norm takes its statistics over the whole batch: a training step is split only
where the recipe says so (:mod:`ltrobust_bench.compute.parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from ltrobust_bench.compute import ranks
from ltrobust_bench.compute.parts import in_parts
from ltrobust_bench.errors import LTBenchError

T = TypeVar("T")


SAID = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "allocation_failed")
"""By torch where the driver and not its own allocator refuses ("CUDA error: out of memory", since torch 2.8 an
``AcceleratorError``), by torch on the host (Linux, Windows), and by cuBLAS and cuDNN, whose workspaces are not torch's
(``CUBLAS_STATUS_ALLOC_FAILED``, ``CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED``). In lower case."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the GPU or of the host, did not suffice.

    Example:
        >>> out_of_memory(RuntimeError("CUDA error: out of memory"))
        True
    """
    said = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in said for words in SAID)


@contextmanager
def whole(images: int, device: torch.device) -> Iterator[None]:
    """Work of a training step, which nobody splits unasked: batch norm takes its statistics over the whole batch.

    Raises:
        LTBenchError: if it does not fit.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise LTBenchError(
            f"a training step of {images} images does not fit in the memory of {device}. It is never split unasked, "
            "because batch norm would see other statistics; use --precision bf16, or --accumulate N, which passes it "
            "in N parts, or a smaller batch with --set batch_size=...; the last two are another recipe."
        ) from None


class Splitting(nn.Module):
    """A model in eval mode whose batches are split into as many parts as memory asks for.

    Under a gradient each part is computed again when its turn in the backward pass comes, so that one part's
    activations are in memory at a time.

    Args:
        model: pixels [B, ...] to logits [B, C], a module or a function.
    """

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.parts = model, 1

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        if self.parts == 1 or len(x) < 2:
            return self.model(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return in_parts(self.model, x, self.parts)
        return torch.cat([self.model(piece) for piece in x.tensor_split(min(self.parts, len(x)))])

    def fit(self, work: Callable[[], T], images: int) -> T:
        """The result of ``work``, done again with twice as many parts each time that memory does not suffice.

        Args:
            work: uses this model on ``images`` images; must be repeatable.

        Raises:
            LTBenchError: if it does not suffice for one image at a time, or for the part of one of several devices: the
                others are in the middle of theirs.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if ranks.count() > 1:
                    raise LTBenchError(
                        f"{images} images do not fit in the memory of {ranks.count()} devices; use more of them, or "
                        "one alone, which passes them in parts."
                    ) from None
                if self.parts >= images:
                    raise LTBenchError(
                        f"{images} images do not fit in memory, not even passed one at a time; use another device."
                    ) from None
            self.parts *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
