"""Putting finished networks beside the records, so that anybody can verify, attack or build on them offline."""

from __future__ import annotations

from pathlib import Path

from ltrobust_bench.errors import UsageError
from ltrobust_bench.files import read_large
from ltrobust_bench.records import weights
from ltrobust_bench.records.io import read_record
from ltrobust_bench.report.aggregate import method_label
from ltrobust_bench.verbs.loading import load_model


def ship(run: Path | str, results_dir: Path | str = Path("results"), name: str | None = None) -> str:
    """Put a finished run's network into the folder ``weights`` of the results, under a name.

    Args:
        run: its run folder, or its ``model.safetensors``.
        results_dir: where its record is filed.
        name: such as ``lite:at-bsl``; default: protocol and entry. A name that the same run has already is kept up to
            date.

    Returns:
        The name.

    Raises:
        CheckpointError: if the network is missing or damaged.
        UsageError: without a filed record of these weights, for a name that is another's, or if all together would be
            too large.
    """
    run, results_dir = Path(run), Path(results_dir)
    loaded = load_model(run, device="cpu")
    path = run / "model.safetensors" if run.is_dir() else run
    place = loaded.run.record_path()
    filed = results_dir / "records" / place
    if not filed.exists():
        raise UsageError(f"{run} has no filed record at {filed}; file it first: ltbench record submit {run}.")
    if read_record(filed).result.weights_sha256 != loaded.weights_sha256:
        raise UsageError(f"{filed} is the record of other weights than those in {run}.")
    called = name or weights.name_of(loaded.run, method_label(loaded.run))
    weights.add(results_dir / weights.FOLDER, called, read_large(path), loaded.weights_sha256, place)
    return called
