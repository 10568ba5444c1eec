"""Arithmetic as a record states it: float32 products with TF32 or without, kernels that repeat or that are fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch

from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.protocol.spec import Precision

Products = Literal["ieee", "tf32"]
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def float32_products(kind: Products) -> Iterator[None]:
    """float32 convolutions and matrix products on a GPU without TF32 (``ieee``) or with it (``tf32``); on a processor
    they are float32's either way. What was set before comes back.

    torch has two sets of switches. Reading an old one raises where it disagrees with the new ones of torch 2.9 and
    later, and somebody's model may read either, so both are set, and to the same.

    Example:
        >>> with float32_products("ieee"):
        ...     torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        (False, False)
    """
    before = [(write, _read(read)) for read, write in _switches()]
    torch.set_float32_matmul_precision("highest" if kind == "ieee" else "high")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
    for place, on_cuda in _new_switches():
        place.fp32_precision = kind if on_cuda else "ieee"
    try:
        yield
    finally:
        for write, value in before:
            if value is not None:
                write(value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A caller's settings switched off: autocast, ``inference_mode``, ``no_grad``, another default type or device.

    What a record calls float32 is float32, and gradients are there, wherever a run is started. A decorator, too.
    """
    before = torch.get_default_dtype()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def full_float32() -> Any:
    """float32 as IEEE 754 has it, TF32 off: every verdict is made in it, and ``fp32`` in a record means it."""
    return float32_products("ieee")


@contextmanager
def training_arithmetic(precision: Precision, tuned: bool) -> Iterator[None]:
    """Switches of the process for training in a recipe's precision.

    Args:
        precision: of the recipe.
        tuned: let cuDNN time its kernels for each shape and keep the fastest; not where they must repeat
            (:func:`deterministic`).
    """
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = before or (tuned and not torch.are_deterministic_algorithms_enabled())
        with float32_products("tf32" if precision == "tf32" else "ieee"):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU only kernels that give the same bits each time; slower. A processor with the same number of threads
    does so anyway. A record's ``environment.deterministic`` tells that it was made so.

    Raises:
        LTBenchError: in one line, if something has no such kernel.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")  # cuBLAS reads it when it is first used
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = " ".join(str(error).split(". ")[0].split())[:200]
        raise LTBenchError(f"--deterministic: {reason}; leave it out, or use --device cpu, which repeats.") from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark, cudnn.deterministic = before[1:]


def _new_switches() -> list[tuple[Any, bool]]:
    """Switches of torch 2.9 and later, and whether they are a GPU's; none in older ones."""
    found: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]
    if not hasattr(found[0], "fp32_precision"):
        return []
    cpu = [torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn]  # type: ignore[attr-defined]
    return [(place, True) for place in found] + [(place, False) for place in cpu]


def _switches() -> list[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Every switch as a pair of functions, read and write, in the order in which they can be put back: one that is
    written moves others, those before it."""

    def attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)

    return [
        attribute(torch.backends.cuda.matmul, "allow_tf32"),
        attribute(torch.backends.cudnn, "allow_tf32"),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        *(attribute(place, "fp32_precision") for place, _ in _new_switches()),
    ]


def _read(read: Callable[[], Any]) -> Any:
    """A switch's value; None if it is an old one that disagrees with a new one, which torch refuses to read."""
    try:
        return read()
    except RuntimeError:
        return None
