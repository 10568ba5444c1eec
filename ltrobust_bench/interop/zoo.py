"""RobustBench's model zoo (extra ``[robustbench]``), in spite of its imports.

RobustBench 1.1.1 imports ``autoattack``, which is not on the package index (``pyautoattack`` is the same code), and
``pkg_resources``, which recent setuptools no longer has. Both stand in while it is imported, and are gone afterwards.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from torch import nn

from ltrobust_bench.errors import CheckpointError, UnknownNameError, UsageError
from ltrobust_bench.files import make_folder
from ltrobust_bench.models.weights import read_content

DATASETS = {"cifar10-lt": "cifar10", "cifar10-lt-perm": "cifar10", "cifar100-lt": "cifar100"}
"""Our data sets, and whose models of the zoo fit them."""
INSTALL = "pip install 'ltrobust-bench[robustbench]'"


def zoo_model(name: str, dataset: str, folder: Path) -> nn.Module:
    """A Linf model of RobustBench's zoo, in eval mode.

    Args:
        name: as on RobustBench's leaderboard, for instance ``Wong2020Fast``.
        dataset: a data set of ours that is made of CIFAR-10 or CIFAR-100.
        folder: where downloaded checkpoints are kept.

    Raises:
        UsageError: if RobustBench is not installed, or has no models for the data set.
        UnknownNameError: for a name that is not in the zoo.
        CheckpointError: if the download fails, or its file is damaged or holds pickled code.
    """
    if dataset not in DATASETS:
        raise UsageError(f"RobustBench has no models for {dataset}; it has them for {', '.join(DATASETS)}.")
    library = import_robustbench()
    theirs = DATASETS[dataset]
    zoo = library.utils.all_models[library.BenchmarkDataset(theirs)][library.ThreatModel.Linf]
    if name not in zoo:
        raise UnknownNameError("RobustBench model", name, zoo, "They are listed at robustbench.github.io.")
    make_folder(folder)
    ids = zoo[name].get("gdrive_id")
    base = folder / theirs / "Linf" / f"{name}.pt"
    files = [Path(f"{base}_m{i}.pt") for i in range(len(ids))] if isinstance(ids, list) else [base]
    for path in files:
        if path.exists():
            read_content(path)  # what another program left half-written is named, not loaded
    library.utils.download_gdrive_new = whole_download(library.utils.gdown.download)
    try:
        return library.utils.load_model(name, model_dir=folder, dataset=theirs, threat_model="Linf").eval()
    except CheckpointError:
        raise
    except Exception as error:  # forty architectures, old checkpoints and a network: anything may be raised
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"RobustBench could not load {name} ({type(error).__name__}: {reason}); it keeps its files in {folder}."
        ) from None


def whole_download(download: Callable[..., Any]) -> Callable[[str, Path | str], None]:
    """``gdown.download`` such that a file is at its place only if it arrived whole and can be read."""

    def fetch(gdrive_id: str, target: Path | str) -> None:
        place = Path(target)
        partial = place.with_name(f"{place.name}.part")
        try:
            if download(id=gdrive_id, output=str(partial)) is None or not partial.exists():
                raise OSError("no file arrived")
            read_content(partial)
            partial.replace(place)
        except CheckpointError as error:
            raise CheckpointError(f"what was downloaded for {place.stem} cannot be used: {error}") from None
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"could not download {place.stem} ({type(error).__name__}: {reason}).") from None
        finally:
            partial.unlink(missing_ok=True)

    return fetch


def import_robustbench() -> types.SimpleNamespace:
    """RobustBench's ``utils`` module and its enums.

    Raises:
        UsageError: if it is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("robustbench") is None:
        raise UsageError(f"RobustBench is not installed; {INSTALL} installs it.")
    try:
        with _stand_ins(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            utils = import_module("robustbench.utils")
            enums = import_module("robustbench.model_zoo.enums")
    except Exception as error:
        raise UsageError(f"RobustBench cannot be imported ({type(error).__name__}: {error}); try {INSTALL}.") from None
    return types.SimpleNamespace(utils=utils, BenchmarkDataset=enums.BenchmarkDataset, ThreatModel=enums.ThreatModel)


@contextmanager
def _stand_ins() -> Iterator[None]:
    """The modules that RobustBench misses, where they are missing."""
    added = {}
    if importlib.util.find_spec("autoattack") is None:
        added = {
            "autoattack": import_module("pyautoattack"),
            "autoattack.state": import_module("pyautoattack.state"),
        }
    if "pkg_resources" not in sys.modules and importlib.util.find_spec("pkg_resources") is None:
        files = types.ModuleType("pkg_resources")
        files.resource_filename = lambda package, path: str(resources.files(package) / path)  # type: ignore[attr-defined]
        added["pkg_resources"] = files
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
