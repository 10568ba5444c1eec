"""Networks that come with the package: ``results/weights/index.json`` names them, as in ``lite:at-bsl``. No torch here.

In a checkout they lie beside the records, in an installed wheel in the package (``ltrobust_bench/weights``). A file is
read only if it has the SHA-256 that the index states, and the index names the record whose result it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from ltrobust_bench.errors import CheckpointError, UnknownNameError, UsageError
from ltrobust_bench.files import beside_records, write_bytes, write_text
from ltrobust_bench.plan.run import RunSection, Sha256, Text
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.terms import Strict, first_problem

FOLDER, INDEX = "weights", "index.json"
MOST_BYTES = 8_000_000
"""All of them together: the repository stays small."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*:[a-z0-9]+([-+._][a-z0-9]+)*")


class Shipped(Strict):
    """A network that comes with the package."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9+._-]+\.safetensors$")]
    sha256: Sha256 = Field(description="of the file")
    weights_sha256: Sha256 = Field(description="of its tensors, as its record states")
    record: Text = Field(description="place of its record below records")


_INDEX = TypeAdapter(dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], Shipped])


def name_of(run: RunSection, label: str) -> str:
    """What a network is called unless it is given a name: the protocol's, short, and its entry's on the board."""
    collection = re.sub(r"^ltr-linf-(?=.*-v)|-v\d+$", "", run.protocol)
    return f"{collection}:{re.sub(r'[^a-z0-9+._]+', '-', label.lower()).strip('-')}"


def is_name(path: Path | str) -> bool:
    """Whether something is the name of a network and not a path: there is no such file."""
    return NAME.fullmatch(str(path)) is not None and not Path(path).exists()


def folders() -> Iterator[Path]:
    """Where networks are looked for."""
    yield from (place for place in beside_records(FOLDER) if (place / INDEX).is_file())


def read_index(folder: Path) -> dict[str, Shipped]:
    """The networks in a folder by name.

    Raises:
        CheckpointError: if its index is missing or damaged.
    """
    path = folder / INDEX
    try:
        return _INDEX.validate_json(read_bytes(path))
    except FileNotFoundError:
        raise CheckpointError(f"no index of networks at {path}.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {first_problem(error)}.") from None


def shipped_names() -> list[str]:
    """All names there are."""
    return sorted({name for folder in folders() for name in read_index(folder)})


def shipped_file(name: str) -> Path:
    """The file of a network by its name.

    Raises:
        UnknownNameError: for a name that no index has, with the nearest ones.
        CheckpointError: if the file is missing, or is not what the index states.
    """
    for folder in folders():
        shipped = read_index(folder).get(name)
        if shipped is not None:
            path = folder / shipped.file
            wrong = objection(path, shipped)
            if wrong:
                raise CheckpointError(f"the weights of {name} at {path} {wrong}; fetch the file again.")
            return path
    raise UnknownNameError("network", name, shipped_names(), "A run folder or a model.safetensors is taken, too.")


def objection(path: Path, shipped: Shipped) -> str:
    """What is wrong with a file of weights; empty: nothing."""
    try:
        seen = hashlib.sha256(read_bytes(path, MOST_BYTES)).hexdigest()
    except OSError:
        return "are missing"
    except ValueError:
        return f"are larger than {MOST_BYTES:,} bytes"
    return "" if seen == shipped.sha256 else f"are damaged (SHA-256 {seen[:12]}, not {shipped.sha256[:12]})"


def add(folder: Path, name: str, content: bytes, weights_sha256: str, record: str) -> Shipped:
    """Put a network's file into a folder, and its line into the index.

    Raises:
        UsageError: for an impossible name, one that another run's network has, or more than ``MOST_BYTES`` in all.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} is no name of a network; use small letters and digits, as in lite:at-bsl.")
    index = read_index(folder) if (folder / INDEX).exists() else {}
    if name in index and index[name].record != record:
        raise UsageError(f"{name} is the network of {index[name].record}; give this one another name with --name.")
    file = f"{name.replace(':', '-')}.safetensors"
    others = sum((folder / one.file).stat().st_size for other, one in index.items() if other != name)
    if others + len(content) > MOST_BYTES:
        raise UsageError(
            f"{name} has {len(content):,} bytes and the others {others:,}; all together may have {MOST_BYTES:,}."
        )
    found = Shipped(file=file, sha256=hashlib.sha256(content).hexdigest(), weights_sha256=weights_sha256, record=record)
    write_bytes(folder / file, content)
    write_index(folder, index | {name: found})
    return found


def write_index(folder: Path, index: Mapping[str, Shipped]) -> None:
    """Write the index of a folder."""
    text = json.dumps({name: index[name].model_dump() for name in sorted(index)}, indent=1)
    write_text(folder / INDEX, text + "\n")
