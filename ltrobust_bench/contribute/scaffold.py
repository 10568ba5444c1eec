"""Something of one's own to start from: a method, and a plug-in, a data set or a network beside it, each with one
function left to write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import NamedTuple

from ltrobust_bench import baselines
from ltrobust_bench.cards import METHODS_OF_OTHERS, SLUG, methods, plugins
from ltrobust_bench.contribute import templates
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.errors import UsageError
from ltrobust_bench.files import write_text
from ltrobust_bench.models.registry import models
from ltrobust_bench.registry import Registry

WITH = ("plugin", "data", "model")
"""What can be started beside a method."""
_TABLES = {"data": "ltrobust_bench.datasets", "model": "ltrobust_bench.models"}
_SUFFIX = {"method": "", "plugin": "-plugin", "data": "-data", "model": "-net"}
_LISTS = {"data": "ltrobust_bench/data/registry.py", "model": "ltrobust_bench/models/registry.py"}


class Part(NamedTuple):
    """One thing that was begun.

    Attributes:
        kind: method, plugin, data or model.
        name: what users type.
        function: the one to write.
        file: where it is.
    """

    kind: str
    name: str
    function: str
    file: Path


class Lines(NamedTuple):
    """Lines that an existing file lacks, and where in it they belong."""

    file: Path
    where: str
    text: str


@dataclass
class Started:
    """What was begun.

    Attributes:
        parts: the method first.
        written: all files, in the order of writing.
        proofs: of the checkout, tests of methods and plug-ins, each with one function to write.
        missing: what people add to files that are there.
    """

    parts: list[Part] = field(default_factory=list)
    proofs: list[Path] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    missing: list[Lines] = field(default_factory=list)


def start_method(slug: str, output: Path | None = None, beside: Sequence[str] = ()) -> Started:
    """Write the folder of a new method, and what is asked for beside it.

    Args:
        slug: its name; ``my-loss`` has the plug-in ``my-loss-plugin``, the data set ``my-loss-data``, the network
            ``my-loss-net``.
        output: folder of a package to put it in, which gets a ``pyproject.toml`` if it has none; None: the checkout.
        beside: of :data:`WITH`.

    Raises:
        UsageError: for a name that is none or is taken, files that are there, or no checkout.
    """
    kinds = ["method", *(kind for kind in WITH if kind in beside)]
    _refuse_bad_names(slug, kinds)
    if output is None and baselines.CHECKOUT is None:
        raise UsageError("there is no checkout to add to: add --output DIR to start it in a package of your own.")
    terms, started = _terms(slug, output, kinds), Started()
    files: dict[Path, str] = {}
    for kind in kinds:
        files |= _of_checkout(kind, terms, started) if output is None else _of_package(kind, terms, output, started)
    for path in files:
        taken = path.parent if path.name == "method.py" else path
        if taken.exists():
            raise UsageError(f"{taken} exists and is never overwritten; take another name, for instance {_free(slug)}.")
    if output is not None:
        files = {output / terms["module"] / "__init__.py": templates.INIT, **files, **_project(terms, output, started)}
    for path, text in files.items():
        write_text(path, Template(text).substitute(terms))
        started.written.append(path)
    methods.read_again()  # for whoever goes on in the same process
    return started


def _terms(slug: str, output: Path | None, kinds: Sequence[str]) -> dict[str, str]:
    """What the templates are filled in with."""
    plain = slug.replace("-", "_")
    name = re.sub(r"^(?=\d)", "N", "".join(word.capitalize() for word in slug.split("-")))
    module = plain if output is None else f"ltbench_{plain}"
    data, net = (f"{plain}_data", f"{plain}_net") if output is None else ("data", "net")
    return {
        "slug": slug,
        "title": slug.replace("-", " ").capitalize(),
        "key": slug.replace("-", ""),
        "year": str(datetime.now(UTC).year),
        "module": module,
        "class_name": name,
        "net_name": f"{name}Net",
        "net_function": re.sub(r"^(?=\d)", "net_", f"{plain}_net"),
        "constant": re.sub(r"^(?=\d)", "DATA_", f"{plain}_data".upper()),
        "data_module": f"ltrobust_bench.data.{data}" if output is None else f"{module}.{data}",
        "net_module": f"ltrobust_bench.models.{net}" if output is None else f"{module}.{net}",
        "data_file": f"{data}.py",
        "net_file": f"{net}.py",
        "model": f"{slug}-net" if "model" in kinds else "resnet18",
    }


_FUNCTIONS = {"method": "loss", "plugin": "attack_budget", "data": "read", "model": "$net_function"}


def _part(kind: str, terms: dict[str, str], file: Path, started: Started) -> Path:
    """Note what was begun in a file; the file."""
    function = Template(_FUNCTIONS[kind]).substitute(terms)
    started.parts.append(Part(kind, terms["slug"] + _SUFFIX[kind], function, file))
    return file


def _folder(kind: str, folder: Path) -> dict[Path, str]:
    """A method's or plug-in's folder. The card comes last: a folder without one is no method, so nothing half-written
    is ever read."""
    code, card = (templates.METHOD, templates.CARD) if kind == "method" else (templates.PLUGIN, templates.PLUGIN_CARD)
    return {folder / "method.py": code, folder / "card.toml": card}


def _of_checkout(kind: str, terms: dict[str, str], started: Started) -> dict[Path, str]:
    """Files of a part in the checkout, by path; a data set or network also needs its line in a registry."""
    root = baselines.CHECKOUT
    assert root is not None
    if kind in ("method", "plugin"):
        name = (terms["slug"] + _SUFFIX[kind]).replace("-", "_")
        _part(kind, terms, root / name / "method.py", started)
        started.proofs.append(root.parent / "tests" / "maths" / f"test_{name}.py")
        text = templates.METHOD_TEST if kind == "method" else templates.PLUGIN_TEST
        return {started.proofs[-1]: text, **_folder(kind, root / name)}
    module, attribute, text = _target(kind, terms)
    file = _part(kind, terms, (root.parent / module.replace(".", "/")).with_suffix(".py"), started)
    line = f'Registration("{terms["slug"]}{_SUFFIX[kind]}", "{module}:{attribute}", "one line for listings", _HERE),'
    started.missing.append(Lines(root.parent / _LISTS[kind], "to the list in `_built_in`", line))
    return {file: text}


def _of_package(kind: str, terms: dict[str, str], output: Path, started: Started) -> dict[Path, str]:
    """Files of a part in a package of one's own, by path."""
    package = output / terms["module"]
    if kind == "method":
        return _folder(kind, _part(kind, terms, package / "method.py", started).parent)
    if kind == "plugin":
        folder = _part(kind, terms, package / "plugin" / "method.py", started).parent
        return {folder / "__init__.py": templates.INIT, **_folder(kind, folder)}
    module, _, text = _target(kind, terms)
    file = _part(kind, terms, package / f"{module.rpartition('.')[2]}.py", started)
    return {file: text}


def _target(kind: str, terms: dict[str, str]) -> tuple[str, str, str]:
    """Module and name of a data set or network, and the module's text."""
    if kind == "data":
        return terms["data_module"], terms["constant"], templates.DATA
    return terms["net_module"], terms["net_function"], templates.NET


def _project(terms: dict[str, str], output: Path, started: Started) -> dict[Path, str]:
    """The package's ``pyproject.toml`` with its entry points; where there is one, what it lacks is noted."""
    tables: dict[str, list[str]] = {}
    for part in started.parts:
        table = f'[project.entry-points."{_TABLES.get(part.kind, METHODS_OF_OTHERS)}"]'
        target = ":".join(_target(part.kind, terms)[:2]) if part.kind in _TABLES else terms["module"]
        target += ".plugin" if part.kind == "plugin" else ""
        tables.setdefault(table, []).append(f'{part.name} = "{target}"')
    project = output / "pyproject.toml"
    if not project.exists():
        return {project: templates.PROJECT + "".join(f"\n{t}\n" + "".join(f"{i}\n" for i in tables[t]) for t in tables)}
    there = project.read_text(encoding="utf-8", errors="replace")
    # TOML has a table once: below one that is there, only its lines are missing.
    text = "".join(
        "".join(f"{line}  # below {table}\n" for line in lines)
        if table in there
        else f"{table}\n" + "".join(f"{line}\n" for line in lines)
        for table, lines in tables.items()
    )
    where = f"{terms['module']} to the packages, and register it"
    started.missing.append(Lines(project, where, text))
    return {}


def _registry_of(kind: str, name: str) -> Registry:
    if kind in ("method", "plugin"):
        return plugins if name in plugins else methods
    return datasets if kind == "data" else models


def _refuse_bad_names(slug: str, kinds: Sequence[str]) -> None:
    if not re.fullmatch(SLUG, slug):
        plain = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")
        offer = f"; write for instance {plain if not _taken(plain) else _free(plain)}" if plain else ""
        raise UsageError(f"{slug!r} is no name for a method: small letters and digits, joined by dashes{offer}.")
    for kind in kinds:
        name = slug + _SUFFIX[kind]
        if name in (registry := _registry_of(kind, name)):
            origin = registry.entry(name).origin
            raise UsageError(f"{name} is taken by {origin}; take another name, for instance {_free(slug)}.")


def _taken(slug: str) -> bool:
    return any(slug + suffix in _registry_of(kind, slug + suffix) for kind, suffix in _SUFFIX.items())


def _free(slug: str) -> str:
    number = 2
    while _taken(f"{slug}-{number}"):
        number += 1
    return f"{slug}-{number}"
