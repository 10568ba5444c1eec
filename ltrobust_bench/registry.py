"""One registry for everything that has a name: methods, datasets, models, attacks, protocols.

An entry is light (name, one line of help, where it was declared); its target is imported when it is first
used, so listing names never imports torch. Other packages add entries through the entry-point groups
``ltrobust_bench.methods`` (a package that holds ``card.toml`` and ``method.py``), ``.datasets``
(``module:SPEC``, a :class:`~ltrobust_bench.data.registry.DatasetSpec`) and ``.models`` (``module:function``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any, Generic, TypeVar

from ltrobust_bench.errors import LTBenchError, UnknownNameError, UsageError

T = TypeVar("T")


class DuplicateNameError(LTBenchError):
    """Two declarations of the same name; both places are named."""


@dataclass(frozen=True)
class Registration:
    """A name in a registry.

    Attributes:
        name: what users type.
        target: the object itself, or ``"module:attribute"`` to be imported when first used.
        help: one line.
        origin: where it was declared, for messages.
        group: heading under which listings show it.
    """

    name: str
    target: Any
    help: str = ""
    origin: str = ""
    group: str = ""

    def load(self) -> Any:
        """The object behind the name, importing it if needed.

        Raises:
            UsageError: if it cannot be imported.
        """
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except Exception as error:  # noqa: BLE001 - somebody else's module may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UsageError(f"{self.name!r} of {self.origin or self.target} cannot be loaded ({reason}).") from error


def installed(group: str) -> list[Registration]:
    """What other packages declare in an entry-point group; the target is the entry point's value."""
    entries = []
    for point in entry_points(group=group):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        entries.append(
            Registration(point.name, point.value, origin=f"{package} ({point.value})", group=f"from {package}")
        )
    return entries


@dataclass
class Registry(Generic[T]):
    """Names of one kind, each pointing at a ``T``.

    Args:
        kind: singular noun used in messages, e.g. ``"dataset"``.
        discover: called once, before the first look-up; returns entries (a folder scan, for instance).
        entry_point_group: group of other packages' entry points to include.
        base: what every target is an instance of.
    """

    kind: str
    discover: Callable[[], list[Registration]] | None = None
    entry_point_group: str | None = None
    base: Any = object
    _entries: dict[str, Registration] = field(default_factory=dict)
    _complete: bool = False
    _filling: Any = field(default_factory=RLock, repr=False, compare=False)

    def add(self, entry: Registration, replaces: str | None = None) -> None:
        """Add an entry.

        Args:
            replaces: an origin whose entry of the same name goes.

        Raises:
            DuplicateNameError: if the name is taken.
        """
        if replaces is not None:
            self._fill()
        old = self._entries.get(entry.name)
        if old is not None and old.origin != replaces:
            raise DuplicateNameError(
                f"{self.kind} {entry.name!r} is declared twice: in {old.origin or 'unknown'} "
                f"and in {entry.origin or 'unknown'}; rename one of them."
            )
        self._entries[entry.name] = entry

    def _fill(self) -> None:
        with self._filling:  # several threads may be the first to look
            if self._complete:
                return
            found = self.discover() if self.discover else []
            found += installed(self.entry_point_group) if self.entry_point_group else []
            self._complete = True
            for entry in found:
                self.add(entry)

    def read_again(self) -> None:
        """Look for entries anew at the next look-up."""
        self._entries.clear()
        self._complete = False

    def entry(self, name: str) -> Registration:
        """The entry called ``name``, in any case.

        Raises:
            UnknownNameError: with the nearest names.
        """
        self._fill()
        try:
            return self._entries[name if name in self._entries else str(name).lower()]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def get(self, name: str) -> T:
        """The loaded object called ``name``.

        Raises:
            UnknownNameError: with the nearest names.
            UsageError: if it cannot be imported, or is something else than it is registered as.
        """
        entry = self.entry(name)
        found = entry.load()
        if not isinstance(found, self.base):
            raise UsageError(
                f"{self.kind} {name!r} of {entry.origin} is a {type(found).__name__}, not a {self.base.__name__}."
            )
        return found

    def names(self) -> list[str]:
        """All names, sorted."""
        self._fill()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Registration]:
        self._fill()
        return iter(self._entries[name] for name in self.names())

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._entries


def scanned(package: ModuleType, base: type, shared: Collection[str]) -> list[Registration]:
    """The kinds that a package's files define, each one subclass of ``base`` with a line of ``help``, named after its
    file.

    Args:
        shared: names of files that define no kind.

    Raises:
        UsageError: for a file that defines none or several.
    """
    files = sorted(file for folder in package.__path__ for file in Path(folder).glob("*.py"))
    return [_defined(file, package.__name__, base) for file in files if file.stem not in shared]


def _defined(file: Path, package: str, base: type) -> Registration:
    module, origin = import_module(f"{package}.{file.stem}"), f"{package.rpartition('.')[2]}/{file.name}"
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    kinds = [v for v in own if issubclass(v, base)]
    if len(kinds) != 1:
        raise UsageError(f"{origin} must define one subclass of {base.__name__}, it defines {len(kinds)}.")
    return Registration(file.stem.replace("_", "-"), kinds[0], kinds[0].help, origin)  # type: ignore[attr-defined]
