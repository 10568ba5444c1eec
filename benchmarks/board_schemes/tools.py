"""A copy of the project in which a board can be forged, and what forgers need."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records.io import dumps, read_record
from ltrobust_bench.records.retract import Retraction
from ltrobust_bench.records.schema import Record, Result
from ltrobust_bench.records.verify import Verification, verification, write_verification
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.scores.reliability import Reliability

ROOT = Path(__file__).resolve().parents[2]
JANE = "jane@example.org"


SOUND = Reliability(
    images=200, randomness=0.0, probabilities=False, confidence=0.6, zero_gradients=0.0, accuracy_at_half=0.0,
    accuracy_by_radius={"1": 0.5}, batch_dependence=0.0, state_changed=False,
)  # fmt: skip
"""What is measured of a network that has no flag."""
FLAGGED = SOUND.model_copy(update={"zero_gradients": 0.5})


class Copy:
    """A clone of the project, and ways to forge what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder / "clone", folder / "keys"
        self.keys.mkdir(parents=True)
        run("git", "clone", "--quiet", "--no-hardlinks", f"file://{ROOT}", str(self.folder))
        for name in ("jane", "stranger"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.keys / name))
        with (self.results / "signers").open("a") as signers:
            signers.write(self.key_line(JANE, "jane"))
        self.git("switch", "--quiet", "--force-create", "main")
        self.commit(JANE)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def key_line(self, name: str, key: str, options: str = "") -> str:
        return f"{name} {options}{(self.keys / f'{key}.pub').read_text().strip()}\n"

    def git(self, *words: str) -> str:
        return run("git", "-C", str(self.folder), *words)

    def commit(self, who: str = "stranger@example.org") -> None:
        self.git("add", "--all")
        name = ("-c", f"user.name={who}", "-c", f"user.email={who}")
        self.git(*name, "commit", "--quiet", "--allow-empty", "--message", "scheme")

    def again(self) -> None:
        """A new branch from main, with nothing left of the last scheme."""
        self.git("reset", "--quiet", "--hard")
        self.git("clean", "-qfdx")
        self.git("switch", "--quiet", "--force-create", "scheme", "main")

    @cached_property
    def records(self) -> dict[tuple[str, int], Record]:
        """Records of the main digits board by method (without settings) and seed."""
        folder = self.results / "records" / "digits-v0" / "digits-lt-ir20"
        found = {}
        for path in sorted(folder.rglob("*.json")):
            record = read_record(path)
            if record.run.profile == "exp" and not record.run.overrides:
                found.setdefault((path.parent.name, record.run.seed), record)
        return found

    def of(self, method: str, seed: int = 0) -> Record:
        return self.records[method, seed]

    def path_of(self, record: Record) -> Path:
        return self.results / "records" / record.run.record_path()

    def file(self, record: Record) -> Record:
        path = self.path_of(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(record))
        return record

    def state(self, record: Record, kind: str = "re-evaluated", **more: Any) -> Path:
        return write_verification(stated(record, kind, **more), self.results)

    def retract(self, record: Record) -> Path:
        said = Retraction(record=record.id, path=record.run.record_path(), reason="wrong split", date="2026-11-20")
        path = self.results / "retractions" / f"{record.id}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(said.model_dump_json())
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new, 1))


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def stated(record: Record, kind: str = "re-evaluated", robust: np.ndarray | None = None, **more: Any) -> Verification:
    """A statement about a record that nobody computed; it confirms the record unless told otherwise."""
    robust = record.bits("union") if robust is None else robust
    made = verification(record, kind, None, record.bits("clean"), robust, record.result.weights_sha256,  # type: ignore[arg-type]
                        "an independent laboratory", record.environment)  # fmt: skip
    sound = {} if kind == "counterexamples" else {"reliability": SOUND}
    return made.model_copy(update={"graph_sha256": "9" * 64} | sound | more)


def forged(like: Record, *, bits: dict[str, np.ndarray] | Record | None = None, weights: str | None = "f" * 64,
           environment: dict[str, Any] | None = None, **fields: Any) -> Record:  # fmt: skip
    """A record like another, with other bits and fields of the run section; everything derived is made to fit."""
    raw = like.model_dump(mode="json", exclude_defaults=True)
    raw["run"] |= fields
    if isinstance(bits, Record):
        raw["result"] |= {"bits": bits.result.bits, "broken_by": bits.result.broken_by}
    elif bits is not None:
        by = (bits["clean"] & ~bits["autoattack"]).astype(np.uint8)
        raw["result"] |= {"bits": {n: pack(v, 1) for n, v in bits.items()}, "broken_by": pack(by, 3)}
    raw["result"]["digest"] = Result.digest_of(raw["result"]["bits"], raw["result"]["broken_by"])
    raw["result"]["weights_sha256"] = weights or raw["result"]["weights_sha256"]
    raw["environment"] |= environment or {}
    raw["cost"]["evaluation"] |= {"forwards": 10**7, "backwards": 10**7}
    raw["status"]["reduced"] = RunSection.model_validate(raw["run"]).reduced
    return Record.model_validate(raw)


def invented(record: Record, accuracy: float = 0.95, seed: int = 0) -> dict[str, np.ndarray]:
    """Bits that nobody computed: so many images withstand everything."""
    rng = np.random.default_rng(seed)
    clean = rng.random(record.images) < 0.99
    robust = clean & (rng.random(record.images) < accuracy)
    return {"clean": clean, **dict.fromkeys(record.attacks, robust)}


SCHEMES: dict[str, Callable[[Copy], None]] = {}
"""By name: what it is, in words, is the function's first line."""


def scheme(function: Callable[[Copy], None]) -> Callable[[Copy], None]:
    SCHEMES[function.__name__.strip("_").replace("_", "-")] = function
    return function


def new_entry(copy: Copy, **more: Any) -> list[Record]:
    """Five seeds of an entry that was never run: TRADES by another weight, with bits that nobody computed."""
    like = copy.of("trades")
    options = like.run.options | {"beta": 5.5}
    return [
        copy.file(forged(like, bits=invented(like, seed=s), weights=f"{s:064x}", options=options, seed=s, **more))
        for s in range(5)
    ]
