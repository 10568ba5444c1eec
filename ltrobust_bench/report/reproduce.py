"""From runs back to the command that makes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol import default_protocol, load_protocol
from ltrobust_bench.protocol.spec import FOLDER, DatasetTerms
from ltrobust_bench.records.schema import Record
from ltrobust_bench.report.aggregate import changed_settings


def command(records: Sequence[Record]) -> str:
    """The ``ltbench run`` that repeats runs which differ in the seed only, as a shell takes it.

    What the installed protocol and card give anyway is left out. Results repeat bit for bit on a CPU with the same
    number of threads, so these are named.
    """
    run, where = records[0].run, records[0].environment
    words = ["ltbench", "run", "--method", run.method]
    words += [word for slug in run.plugins for word in ("--plugin", slug)]
    words += ["--dataset", _dataset(run.dataset)]
    words += [word for name, value in _terms(run).items() for word in (f"--{name}", value)]
    words += [word for record in records for word in ("--seed", str(record.run.seed))]
    words += _policy(run)
    for name, value in changed_settings(run).items():
        if name == "precision":
            continue
        words += ["--set", f"{name}={'none' if value is None else value}"]
    limits = {"epochs": run.epochs, "limit-train": run.limit_train, "limit-test": run.limit_test}
    words += [word for name, value in limits.items() if value is not None for word in (f"--{name}", str(value))]
    if trials := max(record.status.trials for record in records):
        words += ["--trials", str(trials)]
    if where.device.endswith("(CPU)"):
        words += ["--device", "cpu", "--threads", str(where.threads)]
    return shlex.join(words)


def obstacles(run: RunSection) -> list[str]:
    """Why the command would not make this very run with what is installed here; empty if it would."""
    found = []
    digest = _protocol_digest(run)
    if digest != run.protocol_digest:
        here = f"the installed one has {digest[:12]}" if digest else "no such protocol is installed"
        found.append(f"its protocol {run.protocol} has digest {run.protocol_digest[:12]}, {here}")
    if run.method not in methods:
        found.append(f"no card of {run.method} is installed")
    elif (version := methods.get(run.method).card.version) != run.card_version:
        found.append(f"its card was of version {run.card_version}, the installed one is {version}")
    return found + [f"plug-in {slug} is not installed" for slug in run.plugins if slug not in plugins]


def _terms(run: RunSection) -> dict[str, str]:
    """Track, protocol, split and network, where they are not those that a run without these options gets."""
    usual: DatasetTerms | None = None
    protocol: str | None = None
    with suppress(LTBenchError):
        usual = load_protocol(run.protocol).terms(run.dataset)
        protocol = default_protocol(run.dataset)
    asked = {
        "track": (run.track, "fixed"),
        "protocol": (run.protocol, protocol),
        "imbalance-ratio": (_written(run.asked_ratio), _written(usual.imbalance_ratio) if usual else None),
        "profile": (run.profile, usual.profile if usual else None),
        # The recipe of track `paper` may prescribe a network.
        "model": (run.model, usual.model if usual and run.track == "fixed" else None),
    }
    return {name: value for name, (value, default) in asked.items() if value is not None and value != default}


def _policy(run: RunSection) -> list[str]:
    """How it is computed, where that is not the reference path."""
    words = ["--precision", run.recipe.precision] if "precision" in run.overrides else []
    words += ["--crafting", run.policy.crafting] if run.policy.crafting != "network" else []
    return words + (["--compile"] if run.policy.compile else [])


def _protocol_digest(run: RunSection) -> str | None:
    try:
        return protocol_for(run.dataset, run.protocol).digest(run.dataset)
    except LTBenchError:
        return None


def _written(ratio: float | None) -> str | None:
    return None if ratio is None else str(ratio).removesuffix(".0")


def _dataset(name: str) -> str:
    """A data set as users type it: of a folder of images, a record knows the folder's own name and the size."""
    return re.sub(rf"^{FOLDER}-(.+)-([0-9]+)px$", rf"{FOLDER}:\1@\2", name)
