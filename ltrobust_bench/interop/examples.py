"""Adversarial images that other programs saved: AutoAttack and RobustBench, torchattacks, or arrays in an npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ltrobust_bench.errors import UsageError
from ltrobust_bench.models.weights import read_content
from ltrobust_bench.reading import plain_file, read_arrays

LARGEST = 1_000_000_000
"""Bytes of a file of examples, unfolded; 10,000 CIFAR images in float32 have 123 million."""
IMAGES = ("images", "adv_complete", "adv_inputs", "adv_images", "x_adv", "adv")
"""Under which names images are looked for: ours, AutoAttack's, torchattacks', and usual ones."""
LABELS = ("labels", "y", "y_test")
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Examples:
    """Adversarial images.

    Attributes:
        images: float32 in [0, 1], [N, channels, height, width].
        index: places in the data set's test set as it is distributed, [N]; None: the first N, in order.
        labels: what the file says their labels are, [N]; None: nothing.
    """

    images: np.ndarray
    index: np.ndarray | None
    labels: np.ndarray | None


def read_examples(path: Path) -> Examples:
    """The adversarial images in a file: ``.npz``, or what ``torch.save`` wrote (a tensor, images and labels, or a
    dictionary). No code in it is run.

    Raises:
        UsageError: if there are none, or they are not images.
        CheckpointError: if the file is damaged or holds pickled code.
    """
    if not path.is_file():
        raise UsageError(f"no examples at {path}.")
    content = _arrays(path) if _is_npz(path) else read_content(path)
    if isinstance(content, Tensor):
        content = {"images": content}
    elif isinstance(content, (tuple, list)) and len(content) == 2:
        content = {"images": content[0], "labels": content[1]}
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{path} holds no adversarial images; save them as torch.save({{'adv_complete': x_adv}}, FILE)."
        )
    found = {name: _array(value) for name, value in content.items()}
    name = next((name for name in IMAGES if found.get(name) is not None), None)
    if name is None:
        raise UsageError(
            f"{path} holds {', '.join(map(str, found)) or 'nothing'}, and no images under one of {', '.join(IMAGES)}."
        )
    images = _as_images(path, found[name])
    label_name = next((name for name in LABELS if found.get(name) is not None), "")
    return Examples(images, _whole(path, "index", found, len(images)), _whole(path, label_name, found, len(images)))


def _is_npz(path: Path) -> bool:
    try:
        with plain_file(path) as content, zipfile.ZipFile(content) as archive:
            names = archive.namelist()
            return bool(names) and all(name.endswith(".npy") for name in names)
    except Exception:  # noqa: BLE001 - whatever a damaged zip file makes of its reader
        return False


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with plain_file(path) as content:
            return dict(read_arrays(content, None, LARGEST))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no readable .npz ({' '.join(str(error).split())[:200]}).") from None


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, Tensor):
        return value.detach().float().numpy() if value.is_floating_point() else value.detach().numpy()
    return value if isinstance(value, np.ndarray) else None


def _as_images(path: Path, images: np.ndarray | None) -> np.ndarray:
    assert images is not None
    if images.ndim != 4 or not len(images):
        raise UsageError(f"{path}: images [N, channels, height, width] are needed, not an array {images.shape}.")
    if images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    if images.dtype.kind != "f":
        raise UsageError(f"{path}: images must be float in [0, 1] or uint8, not {images.dtype}.")
    if not np.isfinite(images).all() or images.min() < -0.01 or images.max() > 1.01:
        raise UsageError(
            f"{path}: pixels from {images.min():.4g} to {images.max():.4g}; images in [0, 1] are needed, as they are "
            "before a model normalises them."
        )
    return images.astype(np.float32)


def _whole(path: Path, name: str, found: Mapping[str, Any], count: int) -> np.ndarray | None:
    values = found.get(name)
    if values is None:
        return None
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise UsageError(f"{path}: `{name}` needs one whole number for each of the {count} images.")
    return values.astype(np.int64)
