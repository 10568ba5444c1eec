"""Weights that somebody else has trained, from which a network of timm or torchvision starts. No torch here."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ltrobust_bench.errors import DataError, UsageError
from ltrobust_bench.reading import plain_file
from ltrobust_bench.terms import Strict, printable

HUB = "hub"
"""What is asked for to have the library's own weights."""
THEIRS = re.compile("(timm|torchvision)-(.+)")
"""Networks of other libraries, as records call them."""
_NAMED_BY_DIGEST = re.compile("-([0-9a-f]{8,64})$")
_CACHED_BY_DIGEST = re.compile("^([0-9a-f]{64})$")
Channel = Annotated[float, Field(ge=-10, le=10)]


class Pretrained(Strict):
    """Weights that a run starts from. What they were trained on is not known, so they count as extra training data."""

    source: Literal["hub", "file"] = Field(description="the library's own weights, or a file of the user's")
    name: str = Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", description="there, or of it")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file")
    mean: list[Channel] = Field(min_length=1, max_length=4, description="subtracted from each channel in the network")
    std: list[Annotated[float, Field(gt=0, le=10)]] = Field(
        min_length=1, max_length=4, description="and by which it is divided then"
    )

    @property
    def asked(self) -> str:
        """What a request says to have them."""
        return HUB if self.source == HUB else self.name

    @property
    def text(self) -> str:
        """In a line, for tables."""
        return f"weights {self.name} ({self.sha256[:12]}), saw unknown"


def find_pretrained(asked: str, model: str, channels: int, data_dir: Path | None) -> tuple[Pretrained, Path]:
    """The weights that are asked for, and the file that holds them.

    Args:
        asked: ``hub``, or a file: its path, or its name in the data folder.
        model: whose they are, ``timm-NAME`` or ``torchvision-NAME``.
        channels: of the images.

    Raises:
        UsageError: for another network, or one without weights of its library.
        DataError: if the file is not there, cannot be fetched, or is not the one that its name says.
    """
    theirs = THEIRS.fullmatch(model)
    if theirs is None:
        raise UsageError(
            f"--pretrained is for networks of timm and torchvision, and the network is {model}: add --model timm:NAME "
            f"or torchvision:NAME."
        )
    from ltrobust_bench.models import ecosystem

    library, network = theirs.groups()
    (name, path), (mean, std) = (
        ecosystem.from_hub(library, network) if asked == HUB else _local(asked, data_dir),
        ecosystem.normalisation(library, network, channels),
    )
    found = sha256_of(path)
    for stated in (*_NAMED_BY_DIGEST.findall(path.stem), *_CACHED_BY_DIGEST.findall(path.resolve().name)):
        if not stated.isdigit() and not found.startswith(stated):  # figures alone are a date
            raise DataError(
                f"{path} has SHA-256 {found[:12]}, its name says {stated[:12]}: it is damaged or another file; fetch "
                f"it again, or give it a name that says nothing."
            )
    source: Literal["hub", "file"] = "hub" if asked == HUB else "file"
    return Pretrained(source=source, name=printable(name, 250), sha256=found, mean=mean, std=std), path


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, however large."""
    with plain_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _local(asked: str, data_dir: Path | None) -> tuple[str, Path]:
    path = Path(asked).expanduser()
    if not path.is_file() and data_dir is not None:
        path = (data_dir.parent if data_dir.is_file() else data_dir) / asked
    if not path.is_file():
        raise DataError(
            f"there is no file {asked} with weights; name one (.safetensors, .pth), or `hub` for the library's own."
        )
    return path.name, path
