"""Networks of other libraries, timm's and torchvision's, as backbones without their classifier: untrained, or with the
weights that their library or somebody else has for them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.errors import CheckpointError, DataError, UnknownNameError, UsageError
from ltrobust_bench.models.pretrained import Pretrained, sha256_of
from ltrobust_bench.models.registry import Shape, require_size
from ltrobust_bench.models.weights import load_strictly, read_weights
from ltrobust_bench.terms import printable

LEAST, LEAST_TOKENS = 32, 8
"""Pixels on a side that a convolutional network, and a transformer, is given at least."""
SIDE = 8
"""Patches on a side of a small image at least: as many as a transformer for 224 pixels has of 28."""


class Backbone(nn.Module):
    """A network of another library that gives features.

    Args:
        network: without its classifier.
        shape: of one image.
        made: what it was made with beside its name (timm).
        left_out: name of the layer that was its classifier (torchvision).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, shape: Shape, made: dict[str, Any] | None = None, left_out: str = ""
    ) -> None:
        super().__init__()
        self.network, self.made, self.left_out = network, made or {}, left_out
        self.normalises = False
        training = network.training
        with torch.no_grad():
            self.features = int(network.eval()(torch.zeros(1, *shape)).shape[1])
        network.train(training)

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Have it normalise each channel of its images, which come in [0, 1], as the makers of its weights did."""
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.normalises = True

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] of images in [0, 1]."""
        return self.network((x - self.mean) / self.std if self.normalises else x)


def patch_side(side: int) -> int:
    """Pixels on a side of a transformer's patches, for images smaller than it was made for: the largest power of two up
    to 16 that divides the image and leaves 8 patches on a side (32 pixels: 4)."""
    return max(p for p in (1, 2, 4, 8, 16) if side % p == 0 and (p == 1 or side // p >= SIDE))


def timm_network(name: str, shape: Shape, drop_path: float = 0.0) -> Backbone:
    """A network of timm (Wightman, 2019) by its name there.

    A transformer is built for the images' size, for images smaller than its own with smaller patches, see
    :func:`patch_side`. Others take the size as it is.

    Args:
        drop_path: rate of stochastic depth in training (Huang et al., ECCV 2016), of the last block.

    Raises:
        UsageError: if timm is missing, has no such network, or one without stochastic depth, or images are too small.
    """
    timm = _timm(name)
    stated, (channels, height, width) = timm.get_pretrained_cfg(name), shape
    made: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    tokens = stated is not None and stated.fixed_input_size
    require_size(f"timm:{name}", shape, LEAST_TOKENS if tokens else LEAST)
    if tokens:
        assert stated is not None
        made["img_size"] = (height, width)
        if min(height, width) < stated.input_size[-1]:
            made["patch_size"] = patch_side(min(height, width))
    made |= {"drop_path_rate": drop_path} if drop_path else {}
    try:
        return Backbone(timm.create_model(name, pretrained=False, **made), shape, made)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise UsageError(f"timm:{name} has no stochastic depth: leave drop_path out.") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what a library that is imported is warned of by torch: nobody here can change it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _timm(name: str) -> Any:
    """The library, if it is there and has this network."""
    if find_spec("timm") is None:
        raise UsageError("networks of timm need it: pip install 'ltrobust-bench[timm]'.")
    with _quietly():
        import timm

    if not timm.is_model(name):
        raise UnknownNameError("network of timm", name, timm.list_models())
    return timm


def torchvision_network(name: str, shape: Shape) -> Backbone:
    """A classifier of torchvision by its name there; its last linear layer is left out.

    Raises:
        UsageError: if torchvision has no such classifier, the images have no three channels or are too small.
    """
    theirs = _torchvision(name)
    if shape[0] != 3:
        raise UsageError(
            f"model torchvision:{name} takes images of 3 channels, and these have {shape[0]}: choose timm's."
        )
    require_size(f"torchvision:{name}", shape, LEAST)
    size = {"image_size": shape[-1]} if name.startswith("vit_") else {}
    network = theirs.get_model(name, weights=None, **size)
    last = [at for at, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, attribute = last.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return Backbone(network, shape, left_out=last)


def _torchvision(name: str) -> Any:
    """The library's networks, if it has this one."""
    with _quietly():
        from torchvision import models as theirs

    if name not in theirs.list_models(module=theirs):
        raise UnknownNameError("network of torchvision", name, theirs.list_models(module=theirs))
    return theirs


def normalisation(library: str, name: str, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, [0, 1] scale, that weights of a network expect, as its library
    states them; for images of another number of channels their averages.

    Raises:
        UnknownNameError: for a network that it has not.
    """
    if library == "timm":
        stated = _timm(name).get_pretrained_cfg(name)
        mean, std = ([0.0] * 3, [1.0] * 3) if stated is None else (stated.mean, stated.std)
    else:
        weights = _torchvision(name).get_model_weights(name)
        terms = next(iter(weights)).transforms()
        mean, std = terms.mean, terms.std
    found = [[float(v) for v in values] for values in (mean, std)]
    if channels != len(found[0]):
        found = [[sum(values) / len(values)] * channels for values in found]
    return found[0], found[1]


def from_hub(library: str, name: str) -> tuple[str, Path]:
    """Name and file of a library's own weights of a network, downloaded where they are not yet.

    Raises:
        UsageError: if it has none.
        DataError: if they cannot be fetched.
    """
    url, repository, there = "", "", ""
    if library == "timm":
        stated = _timm(name).get_pretrained_cfg(name)
        if stated is not None:
            url, repository = stated.url or "", stated.hf_hub_id or ""
            there = stated.hf_hub_filename or "model.safetensors"
    else:
        found = _torchvision(name).get_model_weights(name)
        url = found.DEFAULT.url if len(found) else ""
    if not (url or repository):
        raise UsageError(f"{library} has no weights for {name}; give --pretrained a file.")
    try:
        if repository and find_spec("huggingface_hub") is not None:
            return repository, _from_hugging_face(repository, there)
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), progress=False)
        return file.name, file
    except Exception as error:  # noqa: BLE001 - what a missing network makes of its users is of many kinds
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 160)
        raise DataError(
            f"the weights of {library}:{name} cannot be fetched ({reason}): fetch {repository or url} where there is a "
            f"network, and give --pretrained the file."
        ) from None


def _from_hugging_face(repository: str, file: str) -> Path:
    """A file of a repository, from its library's cache if it is there, as it is when there is no network."""
    from huggingface_hub import hf_hub_download

    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.CRITICAL)  # it tells of each of its attempts
    try:
        with suppress(OSError):
            return Path(hf_hub_download(repository, file, local_files_only=True))
        return Path(hf_hub_download(repository, file))
    finally:
        log.setLevel(before)


def start_from(backbone: nn.Module, model: str, path: Path, terms: Pretrained) -> None:
    """Give a backbone weights in a file, in place: no code in it is run. What is of a classifier is left out; a
    transformer's patches and positions are resampled to the images' size, by its library.

    Args:
        backbone: of ``model``, ``timm-NAME`` or ``torchvision-NAME``.
        path: the file.
        terms: what the run says of it.

    Raises:
        DataError: if it is another file than that.
        CheckpointError: if it is damaged, or its weights do not fit.
    """
    if sha256_of(path) != terms.sha256:
        raise DataError(f"{path} was changed after the run was planned; type the command again.")
    assert isinstance(backbone, Backbone)
    library, _, name = model.partition("-")
    weights = read_weights(path)
    if library == "timm":
        _start_timm(backbone, name, weights, path)
    else:
        _start_torchvision(backbone, name, weights, path)


def _start_timm(backbone: Backbone, name: str, weights: dict[str, Tensor], path: Path) -> None:
    timm = _timm(name)
    classifier = timm.get_pretrained_cfg(name).classifier or ()
    heads = [classifier] if isinstance(classifier, str) else classifier
    weights = {key: value for key, value in weights.items() if key.rpartition(".")[0] not in heads}
    # Strictly: with a classifier's name, timm would let anything be missing.
    overlay = {"state_dict": weights, "classifier": None, "num_classes": 0}
    try:
        with torch.random.fork_rng(devices=[]):
            loaded = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **backbone.made)
    except Exception as error:  # noqa: BLE001 - whatever other weights make of its filters
        raise CheckpointError(
            f"the weights in {path} do not fit timm:{name} ({printable(' '.join(str(error).split()), 300)})."
        ) from None
    backbone.network.load_state_dict(loaded.state_dict())


def _start_torchvision(backbone: Backbone, name: str, weights: dict[str, Tensor], path: Path) -> None:
    weights = {key: value for key, value in weights.items() if key.rpartition(".")[0] != backbone.left_out}
    if name.startswith("vit_") and "encoder.pos_embedding" in weights:
        from torchvision.models.vision_transformer import interpolate_embeddings

        network: Any = backbone.network
        weights = interpolate_embeddings(network.image_size, network.patch_size, weights)  # type: ignore[arg-type]
    load_strictly(backbone.network, weights, path)
