"""A finished network as a file that needs nothing of this package: ONNX, TorchScript, or torch.export's."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.data.pixels import SCALING
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.errors import CheckFailed, UnknownNameError, UsageError
from ltrobust_bench.files import atomic_path
from ltrobust_bench.records.weights import is_name
from ltrobust_bench.verbs.loading import LoadedModel, file_of, load_model

Format = Literal["onnx", "torchscript", "pt2"]
ENDINGS: dict[str, str] = {"onnx": ".onnx", "torchscript": ".torchscript", "pt2": ".pt2"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""What the format ``onnx`` is written and checked with."""
ABOUT = "ltbench.json"
TOLERANCE = 1e-4
"""By how much logits may differ, as a share of the largest."""
BATCHES = (1, 2, 5)


class Whole(nn.Module):
    """Bytes as every library reads them, uint8 [B, height, width, channels], to logits and probabilities [B, C]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(to_unit(images.permute(0, 3, 1, 2)))
        return logits, logits.softmax(dim=1)


def export(network: Path | str, form: Format = "onnx", output: Path | str | None = None) -> tuple[Path, float]:
    """Write a finished network of ours, with what is done to pixels inside, and see that the file computes the same.

    The file takes uint8 [B, height, width, channels] of the network's size, for any B, and gives ``logits`` and
    ``probabilities``, [B, C]. With it goes a note in JSON: class names, sizes, scaling, which run it is.

    Args:
        network: its run folder, ``model.safetensors``, or the name of a network that comes with the package.
        form: ``onnx`` (needs the extra ``export``), ``torchscript`` or ``pt2``.
        output: file to write; default: ``model.onnx`` and so on, beside the network; of one that comes with the package
            ``lite-at-bsl.onnx`` and so on, here.

    Returns:
        The file, and the largest difference of logits that was seen when it was read again.

    Raises:
        UsageError: for an unknown format, or packages that are missing.
        CheckFailed: if the network cannot be written so, or the file computes something else; nothing is left.

    Example: ``export("runs/at-digits-lt-ir20-small-s0-1a2b3c4d", "pt2")``
    """
    if form not in ENDINGS:
        raise UnknownNameError("format", form, ENDINGS)
    missing = [name for name in NEEDED if form == "onnx" and find_spec(name) is None]
    if missing:
        raise UsageError(
            f"format onnx needs {', '.join(missing)}: pip install 'ltrobust-bench[export]'; torchscript and pt2 do not."
        )
    loaded = load_model(network, "cpu")
    beside = Path(file_of(network).stem) if is_name(network) else loaded.folder / "model"
    path = beside.with_name(f"{beside.name}{ENDINGS[form]}") if output is None else Path(output)
    module, size = Whole(loaded.model).eval(), dataset_spec(loaded.run.dataset).shape
    writing, reading = _FORMATS[form]
    with atomic_path(path) as temporary:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of deprecations among the exporters themselves
                logging.getLogger("torch.onnx").setLevel(logging.ERROR)
                writing(module, _probe(size, 2), temporary, json.dumps(_about(loaded)))
                again = reading(temporary)
                difference = max(_difference(module, again, _probe(size, count)) for count in BATCHES)
        except CheckFailed:
            raise
        except Exception as error:  # noqa: BLE001 - what an exporter makes of a network that it cannot write
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise CheckFailed(f"{network} cannot be written as {form}: {reason}") from None
    return path, difference


def _about(loaded: LoadedModel) -> dict[str, Any]:
    run = loaded.run
    channels, height, width = dataset_spec(run.dataset).shape
    return {
        "input": f"images: uint8 [B, {height}, {width}, {channels}]",
        "outputs": f"logits, probabilities: float32 [B, {len(loaded.class_names)}]",
        "scaling": SCALING,
        "classes": list(loaded.class_names),
        "method": run.combination,
        "dataset": run.dataset,
        "run_key": run.key(),
        "weights_sha256": loaded.weights_sha256,
    }


def _probe(shape: tuple[int, int, int], count: int) -> Tensor:
    """Images of noise, as bytes [count, height, width, channels]."""
    channels, height, width = shape
    generator = np.random.default_rng(count)
    return torch.from_numpy(generator.integers(0, 256, (count, height, width, channels), dtype=np.uint8))


def _difference(module: nn.Module, again: Callable[[Tensor], list[np.ndarray]], images: Tensor) -> float:
    """The largest difference of logits.

    Raises:
        CheckFailed: if it is more than rounding, or shapes are others.
    """
    with torch.no_grad():
        wanted = [value.numpy() for value in module(images)]
    found = again(images)
    if [value.shape for value in found] != [value.shape for value in wanted]:
        raise CheckFailed(f"the file gives {[v.shape for v in found]} for {len(images)} images; nothing was written.")
    off = float(np.abs(found[0] - wanted[0]).max())
    if not off <= TOLERANCE * max(1.0, float(np.abs(wanted[0]).max())):
        raise CheckFailed(f"the file's logits differ by {off:.3g} from the network's; nothing was written.")
    return off


def _write_onnx(module: nn.Module, images: Tensor, path: Path, about: str) -> None:
    import onnx

    torch.onnx.export(
        module,
        (images,),
        str(path),
        input_names=["images"],
        output_names=["logits", "probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"ltbench": about})
    onnx.save(model, str(path))


def _read_onnx(path: Path) -> Callable[[Tensor], list[np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits", "probabilities"], {"images": images.numpy()})


def _write_torchscript(module: nn.Module, images: Tensor, path: Path, about: str) -> None:
    traced = torch.jit.trace(module, (images,), check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={ABOUT: about})


def _read_torchscript(path: Path) -> Callable[[Tensor], list[np.ndarray]]:
    return _called(torch.jit.load(str(path)))


def _write_pt2(module: nn.Module, images: Tensor, path: Path, about: str) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (images,), dynamic_shapes={"images": {0: batch}})
    with path.open("wb") as file:  # by name it wants the ending of the finished file
        torch.export.save(program, file, extra_files={ABOUT: about})


def _read_pt2(path: Path) -> Callable[[Tensor], list[np.ndarray]]:
    with path.open("rb") as file:
        return _called(torch.export.load(file).module())


def _called(module: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], list[np.ndarray]]:
    def call(images: Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            return [value.numpy() for value in module(images)]

    return call


_FORMATS: dict[str, tuple[Callable[..., None], Callable[[Path], Callable[[Tensor], list[np.ndarray]]]]] = {
    "onnx": (_write_onnx, _read_onnx),
    "torchscript": (_write_torchscript, _read_torchscript),
    "pt2": (_write_pt2, _read_pt2),
}
