"""From runs back to the command that makes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import CUTS, RunSection
from ltrobust_bench.protocol import default_protocol, load_protocol
from ltrobust_bench.protocol.spec import IMAGE_FOLDER, IMAGE_LISTS, DatasetTerms
from ltrobust_bench.records.schema import Record
from ltrobust_bench.report.aggregate import changed_settings


def command(records: Sequence[Record]) -> str:
    """The ``ltbench run`` that repeats runs which differ in the seed only, as a shell takes it.

    What the installed protocol and card give anyway is left out. Results repeat bit for bit on a CPU with the same
    number of threads and processes, so these are named.
    """
    run, where = records[0].run, records[0].environment
    words = asked_for(Request.of(run))
    words += [word for record in records for word in ("--seed", str(record.run.seed))]
    settings = {name: value for name, value in changed_settings(run).items() if name != "precision"}
    for name, value in settings.items():
        words += ["--set", f"{name}={'none' if value is None else value}"]
    if where.device.endswith("(CPU)"):
        words += ["--device", "cpu", "--threads", str(where.threads)]
    words += ["--deterministic"] if where.deterministic else []
    if where.devices > 1:
        words += ["--devices", str(where.devices)]
    return shlex.join(words)


def asked_for(asked: Request) -> list[str]:
    """The words of the ``ltbench run`` that asks for this, without seed and settings; what the installed protocol gives
    anyway is left out."""
    words = ["ltbench", "run", "--method", asked.method]
    words += [word for slug in asked.plugins for word in ("--plugin", slug)]
    words += ["--dataset", _dataset(asked.dataset)]
    words += [word for name, value in _terms(asked).items() for word in (f"--{name.replace('_', '-')}", value)]
    words += ["--extra-data", asked.extra_data] if asked.extra_data else []
    words += ["--pretrained", asked.pretrained] if asked.pretrained else []
    words += ["--compile"] if asked.policy and asked.policy.compile else []
    return words


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


def _terms(asked: Request) -> dict[str, str]:
    """What a run without these options does not get anyway, by the option's name."""
    usual: DatasetTerms | None = None
    protocol: str | None = None
    crafting = "network"
    with suppress(LTBenchError):
        usual = load_protocol(asked.protocol or "").terms(asked.dataset)
        crafting = load_protocol(asked.protocol or "").crafting
        protocol = default_protocol(asked.dataset)
    defaults: dict[str, Any] = {
        "track": "fixed",
        "protocol": protocol,
        "imbalance_ratio": usual.imbalance_ratio if usual else None,
        "profile": usual.profile if usual else None,
        # The recipe of track `paper` may prescribe a network.
        "model": usual.model if usual and asked.track == "fixed" else None,
        "precision": None,
        **dict.fromkeys(CUTS),
    }
    terms = {name: getattr(asked, name) for name in defaults}
    changed = {name: value for name, value in terms.items() if value is not None and value != defaults[name]}
    if asked.policy is not None and asked.policy.crafting != crafting:
        changed["crafting"] = asked.policy.crafting
    return {name: str(value).removesuffix(".0") for name, value in changed.items()}


def _protocol_digest(run: RunSection) -> str | None:
    try:
        return protocol_for(run.dataset, run.protocol).digest(run.dataset)
    except LTBenchError:
        return None


def _dataset(name: str) -> str:
    """A data set as users type it: of a folder of images, a record knows the folder's own name and the size, and of
    lists the first one's."""
    name = re.sub(rf"^{IMAGE_LISTS}-(.+)-([0-9]+)px$", rf"{IMAGE_LISTS}:\1.txt,TEST.txt@\2", name)
    return re.sub(rf"^{IMAGE_FOLDER}-(.+)-([0-9]+)px(-[a-z0-9]+)?$", rf"{IMAGE_FOLDER}:\1@\2\3", name)
