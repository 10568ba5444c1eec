"""One registry for everything that has a name: methods, datasets, models, attacks, protocols.

An entry is light (name, one line of help, where it was declared); its target is imported when it is first
used, so listing names never imports torch. Third parties add entries through the entry-point groups
``ltrobust_bench.methods``, ``.datasets`` and ``.models``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from ltrobust_bench.errors import LTBenchError, UnknownNameError

T = TypeVar("T")


class DuplicateNameError(LTBenchError):
    """Two declarations of the same name; both places are named."""


@dataclass(frozen=True)
class Entry:
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
        """The object behind the name, importing it if needed."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


@dataclass
class Registry(Generic[T]):
    """Names of one kind, each pointing at a ``T``.

    Args:
        kind: singular noun used in messages, e.g. ``"dataset"``.
        discover: called once, before the first look-up; returns entries (a folder scan, for instance).
        entry_point_group: group of installed packages' entry points to include.
    """

    kind: str
    discover: Callable[[], list[Entry]] | None = None
    entry_point_group: str | None = None
    _entries: dict[str, Entry] = field(default_factory=dict)
    _complete: bool = False

    def add(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            DuplicateNameError: if the name is taken.
        """
        old = self._entries.get(entry.name)
        if old is not None:
            raise DuplicateNameError(
                f"{self.kind} {entry.name!r} is declared twice: in {old.origin or 'unknown'} "
                f"and in {entry.origin or 'unknown'}; rename one of them."
            )
        self._entries[entry.name] = entry

    def _fill(self) -> None:
        if self._complete:
            return
        found = self.discover() if self.discover else []
        self._complete = True
        for entry in found:
            self.add(entry)
        if self.entry_point_group:
            for point in entry_points(group=self.entry_point_group):
                origin = f"{point.dist.name if point.dist else 'installed package'} ({point.value})"
                self.add(Entry(point.name, point.value, origin=origin, group="third party"))

    def entry(self, name: str) -> Entry:
        """The entry called ``name``.

        Raises:
            UnknownNameError: with the nearest names.
        """
        self._fill()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def get(self, name: str) -> T:
        """The loaded object called ``name``."""
        return self.entry(name).load()

    def names(self) -> list[str]:
        """All names, sorted."""
        self._fill()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        self._fill()
        return iter(self._entries[name] for name in self.names())

    def __contains__(self, name: object) -> bool:
        self._fill()
        return name in self._entries
