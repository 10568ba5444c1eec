"""How a case is tried, and what mutations are made of."""

from __future__ import annotations

import faulthandler
import json
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from ltrobust_bench.errors import LONGEST, LTBenchError

CODES = (0, 1, 2)
"""Exit codes that a case may end with."""
CHUNK = 1000
"""Cases that hypothesis draws in one go; it remembers all of them."""


class FaultError(AssertionError):
    """A case ended otherwise than it may."""


class Hang(BaseException):  # noqa: N818 - no error that a handler of errors may catch
    """A case has not ended in time."""


@dataclass(frozen=True)
class Limits:
    """What a case may take.

    Attributes:
        seconds: of the processor.
        patience: seconds by the clock, until it counts as a hang; other work may slow a machine down.
        memory: bytes, beyond what the process had before.
        stuck: seconds by the clock after which the process ends, where a hang hears no signal; 0: never.
    """

    seconds: float = 10.0
    patience: float = 30.0
    memory: int = 500_000_000
    stuck: float = 0.0


class Kind:
    """A kind of input. A subclass makes sound inputs once, in ``folder``, and tries a mutated one.

    Attributes:
        name: what is typed.
        share: of the cases, among those of all kinds; slow ones get less.
    """

    name: ClassVar[str]
    share: ClassVar[float] = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __init_subclass__(cls) -> None:
        KINDS[cls.name] = cls

    def attempt(self, rng: random.Random, place: Path) -> str | None:
        """Try one case.

        Args:
            rng: all that is drawn is drawn from it.
            place: an empty folder, the case's own.

        Returns:
            ``"refused"`` if it was refused otherwise than by an error of ours; else it was accepted.

        Raises:
            LTBenchError: as the package refuses; anything else is a fault.
        """
        raise NotImplementedError


KINDS: dict[str, type[Kind]] = {}


@dataclass
class Tally:
    """How the cases of a kind ended.

    Attributes:
        ends: how often it was ``accepted`` or ``refused``.
        slowest: seconds of the processor of the slowest case.
        most: bytes of the case that took most, beyond what the process had.
        fault: what is wrong, with the smallest case that hypothesis found; empty: nothing.
        seed: of the chunk in which it was found; the same seed finds it again.
    """

    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    most: int = 0
    fault: str = ""
    seed: int = 0


def campaign(kind: Kind, count: int, first_seed: int, kept: Path, limits: Limits) -> Tally:
    """Try so many cases of a kind, until one is a fault.

    Args:
        count: of cases, at least.
        first_seed: of the first chunk; the next ones follow.
        kept: where the smallest faulty case's files are left, in a folder of the kind's name.
    """
    tally = Tally()
    for i, start in enumerate(range(0, count, CHUNK)):
        tally.seed = first_seed + i
        tally.fault = _chunk(kind, min(CHUNK, count - start), tally.seed, kept, limits, tally)
        if tally.fault:
            break
    return tally


def _chunk(kind: Kind, count: int, start: int, kept: Path, limits: Limits, tally: Tally) -> str:
    place = kept / kind.name
    done = 0

    @seed(start)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @given(st.randoms(use_true_random=False))
    def case(rng: random.Random) -> None:
        nonlocal done
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        end = tried(kind, rng, place, limits, tally)
        done += 1
        tally.ends[end] += 1

    try:
        case()
    except FaultError as fault:
        return str(fault)  # the files of the last attempt, which is the smallest, stay
    shutil.rmtree(place, ignore_errors=True)
    return ""


def tried(kind: Kind, rng: random.Random, place: Path, limits: Limits, tally: Tally) -> str:
    """Try one case and say how it ended.

    Raises:
        FaultError: naming what it did that no case may.
    """
    before, began = _reset_peak(), time.process_time()
    try:
        with _alarm(limits.patience, limits.stuck):
            end = kind.attempt(rng, place) or "accepted"
    except LTBenchError as error:
        check_message(str(error), error.exit_code)
        end = "refused"
    except Hang:
        raise FaultError(f"{kind.name}: no end after {limits.patience:g} seconds") from None
    except FaultError:
        raise
    except (Exception, SystemExit) as error:
        raise FaultError(f"{kind.name}: {type(error).__name__}: {error} ({_where(error)})") from error
    took, grew = time.process_time() - began, _peak() - before
    tally.slowest, tally.most = max(tally.slowest, took), max(tally.most, grew)
    if took > limits.seconds:
        raise FaultError(f"{kind.name}: took {took:.1f} seconds of the processor")
    if grew > limits.memory:
        raise FaultError(f"{kind.name}: took {grew / 1e6:.0f} MB")
    return end


def _where(error: BaseException) -> str:
    """The last lines of ours and of anybody's that an exception went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/ltrobust_bench/" in frame.filename]
    shown = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in [*ours[-2:], frames[-1]]]
    return ", ".join([*dict.fromkeys(shown), *getattr(error, "__notes__", ())])


def check_message(text: str, code: int) -> None:
    """See that a message is one short line that prints, and that its exit code is one of ours.

    Raises:
        FaultError: naming what is wrong with it.
    """
    if code not in CODES:
        raise FaultError(f"exit code {code}: {text[:200]!r}")
    if not text.isprintable() or not 0 < len(text) <= LONGEST:
        raise FaultError(f"no line of at most {LONGEST} characters that print: {text[:400]!r}")


@contextmanager
def _alarm(seconds: float, stuck: float) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if stuck:
        faulthandler.dump_traceback_later(stuck, exit=True)
    try:
        yield
    finally:
        if stuck:
            faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reset_peak() -> int:
    """Begin to watch how much memory this process uses; how much it does. 0 where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return 0
    return _peak()


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


# Mutations

NUMBERS = (0, 1, -1, 2, 7, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 10**30)
TEXTS = (
    "", " ", "\0", "a\nb", "\x1b[2J", "\u202eabc", "\ud800", "\ufeff", "é", "x" * 5000, "../../x", "/", "nan", "inf",
    "-1", "0x10", "1e999", "None", "%s%n", "{}", "${HOME}", "a/b", "folder:", "\N{PILE OF POO}", "2999-01-01T00:00:00Z",
)  # fmt: skip


def odd_value(rng: random.Random) -> Any:
    """A value that few fields are made for."""
    return rng.choice(
        [
            *NUMBERS[:8], *TEXTS, None, True, False, 0.1, -0.0, float("nan"), float("inf"), 1e308, -2.5, [], {}, [[]],
            [{}], {"a": 1}, [1, 2, 3], ["x"], [None], {"": ""}, rng.choice(NUMBERS), [0] * 3000,
        ]
    )  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random, most: int = 4) -> bytes:
    """Some bytes changed, put in, taken out, repeated, or the end cut off."""
    content = bytearray(data)
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(content) + 1)
        length = rng.choice([1, 1, 2, 4, 8, 64, 1000])
        match rng.randrange(7):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                width = rng.choice([1, 2, 4, 8])
                number = rng.choice(NUMBERS) % 2 ** (8 * width)
                content[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length]
            case 4:
                content[at:at] = rng.choice([b"\0", b"\xff", b"\n", b"PK\3\4", b"}", b"9"]) * length
            case 5:
                del content[at:]
            case 6:
                other = rng.randrange(len(content) + 1)
                content[at : at + length] = content[other : other + length]
    return bytes(content)


def branches(tree: Any) -> list[tuple[Any, Any]]:
    """Every (parent, key) in a tree of mappings and lists."""
    found: list[tuple[Any, Any]] = []
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        found.append((tree, key))
        if isinstance(tree[key], (dict, list)):
            found += branches(tree[key])
    return found


def mutate_tree(tree: Any, rng: random.Random, most: int = 3) -> None:
    """Some values of a tree changed, taken out, put in, renamed or nested, in place."""
    for _ in range(rng.randint(1, most)):
        places = branches(tree)
        if not places:
            return
        parent, key = rng.choice(places)
        match rng.randrange(6):
            case 0 | 1:
                parent[key] = odd_value(rng)
            case 2:
                del parent[key]
            case 3 if isinstance(parent, dict):
                parent[rng.choice([*TEXTS, "note", str(key) + "s"])] = parent.pop(key)
            case 4:
                for _ in range(rng.choice([1, 5, 300])):
                    parent[key] = [parent[key]] if rng.randrange(2) else {"a": parent[key]}
            case _:
                other, its = rng.choice(places)
                try:
                    parent[key] = json.loads(json.dumps(other[its]))
                except (ValueError, LookupError, RecursionError):
                    parent[key] = None


def to_toml(value: Any) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(str(k))} = {to_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(to_toml(v) for v in value if v is not None) + "]"
    if isinstance(value, str):
        return _string(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _string(text: str) -> str:
    return json.dumps(text.encode("utf-8", errors="replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_file(table: dict[str, Any]) -> bytes:
    """The TOML file of a table, which may be nested deeper than what reads it goes."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * usual)
    try:
        return "".join(f"{_string(str(k))} = {to_toml(v)}\n" for k, v in table.items() if v is not None).encode()
    finally:
        sys.setrecursionlimit(usual)
