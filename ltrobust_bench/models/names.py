"""Names of weights: which sets of them a checkpoint holds, and how their names become a model's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the weights, beside an epoch or an optimiser's state; these come first."""
AVERAGED = ("ema", "swa", "avg", "average", "shadow", "teacher", "momentum")
"""Words in the name of weights that are not those that were trained but a mean over steps."""
INSIDE = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What wrappers of parts of a model put into the middle of a name."""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""Last parts of names that need not be there and do not enter a result."""
DEEPEST = 4
"""Dictionaries in one another that are looked through."""
SHOWN = 4
"""Names of a misfit that an error lists."""


@dataclass(frozen=True)
class Found:
    """A dictionary in a checkpoint.

    Attributes:
        key: the keys that lead to it, joined by points.
        tensors: in it, by name.
        alone: whether it holds nothing else.
    """

    key: str
    tensors: Mapping[str, Any]
    alone: bool


@dataclass(frozen=True)
class Fit:
    """Tensors under a model's own names.

    Attributes:
        key: tells these weights from others of the file: the keys that lead to them and the front of their names.
        tensors: by the model's names.
        dropped: what of the front of the names was left out.
        inside: whether wrappers in the middle of names were left out or put in.
        unused: other names beside them.
    """

    key: str
    tensors: Mapping[str, Any]
    dropped: str
    inside: bool
    unused: tuple[str, ...]

    def line(self, file: str, others: list[str]) -> str:
        """What was done, in one line; empty if nothing was."""
        parts = [f"`{self.dropped}` left out of the names"] if self.dropped else []
        parts += ["wrappers inside names mapped"] if self.inside else []
        parts += [f"not used: {_few(self.unused)}"] if self.unused else []
        if others:
            parts.append(f"others fit, too: {', '.join(others)} (--weights-key takes one of them)")
        if not parts and not self.key:
            return ""
        return f"weights: {f'`{self.key}` of ' if self.key else ''}{file}{''.join(f'; {part}' for part in parts)}"


@dataclass(frozen=True)
class Misfit:
    """How names and shapes differ: in words, empty if they do not, and in how many places."""

    text: str
    places: int

    def __len__(self) -> int:
        return self.places


def found_in(content: Any) -> list[Found]:
    """Every dictionary of tensors in a checkpoint's content, those that are likely the weights first."""

    def likely(found: Found) -> tuple[bool, bool, int, int]:
        first = found.key.partition(".")[0]
        place = WRAPPERS.index(first) if first in WRAPPERS else len(WRAPPERS)
        return _averaged(found.key), not found.alone, place, found.key.count(".")

    return sorted(_walk(content, ()), key=likely)


def _walk(content: Any, keys: tuple[str, ...]) -> Iterator[Found]:
    if not isinstance(content, Mapping) or len(keys) > DEEPEST:
        return
    named = {str(name): value for name, value in content.items()}
    state = {name: value for name, value in named.items() if _is_state(name, value)}
    if any(isinstance(value, Tensor) for value in state.values()):
        yield Found(".".join(keys), state, len(state) == len(named))
    for name, value in named.items():
        if not name.startswith("optim"):
            yield from _walk(value, (*keys, name))


def _is_state(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) or name.endswith("_extra_state") or "_packed_params" in name


def _averaged(key: str) -> bool:
    return any(word in AVERAGED for word in key.lower().replace(".", "_").split("_"))


def fitting(own: Mapping[str, Any], found: Found) -> list[Fit]:
    """Each way in which tensors are all of a model's, raw weights before averaged ones.

    Args:
        own: the model's state.
        found: tensors that may have a front of names too many, or too few, and others beside them.
    """
    ours = _without_wrappers(own)
    theirs = _without_wrappers(found.tensors)
    for front in ("", *_common_fronts(ours)):  # of a model that is wrapped itself
        bare = {name.removeprefix(front): real for name, real in ours.items()}
        anchor = next((n for n, real in bare.items() if isinstance(own[real], Tensor) and not _counter(n)), "")
        fronts = [n.removesuffix(anchor) for n in theirs if n == anchor or n.endswith(f".{anchor}")]
        fits = [fit for their_front in fronts if (fit := _fit(own, bare, their_front, theirs, found, anchor))]
        if fits:
            return sorted(fits, key=lambda fit: _averaged(fit.key))
    return []


def _fit(
    own: Mapping[str, Any],
    bare: Mapping[str, str],
    front: str,
    theirs: Mapping[str, str],
    found: Found,
    anchor: str,
) -> Fit | None:
    used = {real: theirs[front + name] for name, real in bare.items() if front + name in theirs}
    tensors = {real: found.tensors[name] for real, name in used.items()}
    taken = set(used.values())
    unused = tuple(name for name in found.tensors if name not in taken and not _counter(name))
    if misfit(own, tensors).text or (unused and not front):
        return None
    dropped = theirs[front + anchor].removesuffix(anchor)
    inside = any(used[real] != dropped + name for name, real in bare.items() if real in used)
    key = ".".join(part for part in (found.key, front.rstrip(".")) if part)
    return Fit(key, tensors, dropped, inside, unused)


def _without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Names without wrappers' parts in them, to the names; as they are if two would become one."""
    plain = {".".join(part for part in name.split(".") if part not in INSIDE): name for name in names}
    real = list(names)
    return plain if len(plain) == len(real) else {name: name for name in real}


def _common_fronts(names: Iterable[str]) -> list[str]:
    """What all names begin with, point by point."""
    counted = [name for name in names if not _counter(name)]
    parts = counted[0].split(".")[:-1] if counted else []
    fronts = [".".join(parts[: i + 1]) + "." for i in range(len(parts))]
    return [front for front in fronts if all(name.startswith(front) for name in counted)]


def _counter(name: str) -> bool:
    return name.rpartition(".")[2] in COUNTERS


def nearest(own: Mapping[str, Any], found: Found) -> Misfit:
    """How tensors differ from a model's state, without the wrappers and the front that all of their names have."""
    plain = _without_wrappers(found.tensors)
    front = max((f for f in _common_fronts(plain) if not any(n.startswith(f) for n in own)), key=len, default="")
    bare = {name.removeprefix(front): found.tensors[real] for name, real in plain.items()}
    return min(misfit(own, found.tensors), misfit(own, bare), key=len)


def misfit(own: Mapping[str, Any], weights: Mapping[str, Any]) -> Misfit:
    """How weights differ from a model's state in names and shapes."""
    missing = [n for n in own if n not in weights and not _counter(n)]
    extra = [n for n in weights if n not in own]
    shapes = [
        f"{n} {_shape(weights[n])} for {_shape(own[n])}"
        for n in own
        if n in weights and _shape(weights[n]) != _shape(own[n])
    ]
    kinds = (("missing:", missing), ("left over:", extra), ("of another shape:", shapes))
    return Misfit(
        "; ".join(f"{what} {_few(names)}" for what, names in kinds if names), sum(len(names) for _, names in kinds)
    )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _few(names: Any) -> str:
    return f"{', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
