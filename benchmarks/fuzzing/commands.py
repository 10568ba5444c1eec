"""The command line: every verb, with any of its options, in-process, up to where work begins.

A case stops where a network is computed, a process is started, a connection is made, or others are waited for: all are
replaced by an error. Every path lies below the case's folder.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from fuzzing.documents import ROOT, some_records
from fuzzing.tools import NUMBERS, TEXTS, FaultError, Kind, check_message
from ltrobust_bench.cli.main import ltbench, main
from ltrobust_bench.errors import LTBenchError

PROGRAMS = ("git", "ssh-keygen", "uname", "lscpu", "ldconfig", "nvidia-smi")
"""Programs that a verb may ask something."""
NAMES = [text.replace("/", "_").replace("..", "__") for text in TEXTS]
"""Odd words, none of which leads out of the case's folder."""
FOLDERS = ("LTBENCH_DATA", "LTBENCH_RUNS", "LTBENCH_RESULTS")
LINE = 100_000
"""Characters that a line of output may have."""


class Begun(LTBenchError):  # noqa: N818 - what a case is meant to come to
    """Work would begin here."""


class Commands(Kind):
    """Random verbs with random options."""

    name: ClassVar[str] = "options"
    share: ClassVar[float] = 0.25

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.verbs = list(_verbs(ltbench, []))
        self.sound = folder / "sound"
        self._files(self.sound)
        self.paths = sorted(path.relative_to(self.sound).as_posix() for path in self.sound.rglob("*"))
        self.words = [
            "digits-lt", "cifar10-lt", "folder:photos", "folder:.", "folder-photos-32px", "smoke", "digits-v0", "at",
            "reat", "awp", "robustlt", "trades", "crt", "small", "resnet18", "cpu", "cuda", "cuda:9", "pgd-20", "HEAD",
            "autoattack", "union:tail", "attack.steps=1", "lr=nan", "tau=2", "beta=1e400", "lite:at-bsl", "json:loads",
            "nowhere:at_all", "0123456789ab",
        ]  # fmt: skip

    def attempt(self, rng: random.Random, place: Path) -> str | None:
        shutil.copytree(self.sound, place, symlinks=True, dirs_exist_ok=True)
        os.mkfifo(place / "pipe")
        arguments = self._arguments(rng)
        (place / "arguments.json").write_text(json.dumps(arguments))
        code, text = _called(arguments, place)
        for line in text.splitlines():
            if not line.isprintable() or len(line) > LINE:
                raise FaultError(f"prints {line[:300]!r} for {shown(arguments)}")
        if code in (0, 1):
            return "accepted" if code == 0 else "refused"
        try:
            check_message((text.strip().splitlines() or [""])[-1], code)
        except FaultError as fault:
            raise FaultError(f"{fault} for {shown(arguments)}") from None
        return "refused"

    def _arguments(self, rng: random.Random) -> list[str]:
        path, verb = rng.choice(self.verbs)
        chosen: list[str] = list(path)
        for parameter in verb.params:
            if isinstance(parameter, click.Argument):
                count = rng.choice([0, 1, 1, 1, 2]) if parameter.nargs == -1 or not parameter.required else 1
                chosen += [self._value(parameter, rng) for _ in range(count)]
            elif rng.random() < (0.9 if parameter.required else 0.2):
                for _ in range(rng.choice([1, 1, 2]) if parameter.multiple else 1):
                    chosen.append(rng.choice(parameter.opts + parameter.secondary_opts))
                    if not parameter.is_flag:  # type: ignore[attr-defined]
                        chosen.append(self._value(parameter, rng))
        if path[0] == "new":  # else into this checkout
            chosen += ["--output", "written"]
        if rng.randrange(12) == 0:
            chosen.insert(rng.randrange(len(chosen) + 1), rng.choice(["--", "--nothing", "-", *NAMES]))
        # As the system passes them on: no zero bytes, and bytes that are no text as Python stands them in.
        return [os.fsdecode(text.replace("\0", "0").encode("utf-8", errors="surrogatepass")) for text in chosen]

    def _value(self, parameter: click.Parameter, rng: random.Random) -> str:
        kind = parameter.type
        if rng.randrange(5) == 0:
            return rng.choice([*NAMES, *map(str, NUMBERS)])
        if isinstance(kind, click.Choice):
            return str(rng.choice(list(kind.choices)))
        if isinstance(kind, (click.types.IntParamType, click.IntRange, click.types.FloatParamType, click.FloatRange)):
            return str(rng.choice([*NUMBERS, 0.5, 1e-9, 1e300, "nan", "inf", 10, 20, 50]))
        if isinstance(kind, click.Path):
            return rng.choice([*self.paths, "pipe", "absent", "absent/below", "photos/a/0.png/x", "."])
        return rng.choice([*self.words, *self.words, *self.paths])

    def _files(self, folder: Path) -> None:
        """What a verb may be given: records, networks, pictures, plans, and what is none of them."""
        folder.mkdir()
        for path in some_records()[:2]:
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True)
            shutil.copy(path, target)
        shutil.copy(ROOT / "results" / "plan.toml", folder / "plan.toml")
        for name in "ab":
            (folder / "photos" / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (9, 9), (i, 9, 9)).save(folder / "photos" / name / f"{i}.png")
        save_file({"a": torch.zeros(3)}, folder / "x.safetensors")
        torch.save({"a": torch.zeros(3)}, folder / "x.pt")
        np.savez(folder / "x.npz", index=np.arange(2), images=np.zeros((2, 1, 8, 8), dtype=np.float32))
        (folder / "runs" / "x").mkdir(parents=True)
        (folder / "runs" / "x" / "plan.json").write_text("{}")
        (folder / "notes.txt").write_bytes(b"\xff\x1b[2J\n" * 9)
        (folder / "empty").touch()
        (folder / "zero").symlink_to("/dev/zero")
        (folder / "loop").symlink_to("loop")


def _verbs(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    """Every verb with what is typed to get to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        verb = command.get_command(context, name)
        assert verb is not None
        yield from _verbs(verb, [*path, name])


def _called(arguments: list[str], place: Path) -> tuple[int, str]:
    """Exit code and output of a command, called in a folder where no work can begin."""
    text = io.StringIO()
    before = Path.cwd()
    kept = {
        name: os.environ[name] for name in ("LTBENCH_DATA", "LTBENCH_RUNS", "LTBENCH_RESULTS") if name in os.environ
    }
    os.chdir(place)
    for name in kept:
        del os.environ[name]
    try:
        with _no_work(), redirect_stdout(text), redirect_stderr(text):
            return main(arguments), text.getvalue()
    except Exception as error:
        error.add_note(f"for {shown(arguments)}")
        raise
    finally:
        os.chdir(before)
        os.environ.update(kept)


def shown(arguments: list[str]) -> str:
    """What was typed, as a list of Python."""
    return "ltbench " + repr(arguments)


@contextmanager
def _no_work() -> Iterator[None]:
    start = subprocess.Popen.__init__

    def begin(*_: Any, **__: Any) -> None:
        raise Begun("work would begin here.")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("there is no network")

    def only_questions(process: Any, command: Any, *rest: Any, **terms: Any) -> None:
        program = command[0] if isinstance(command, (list, tuple)) else str(command).split()[0]
        if Path(str(program)).name not in PROGRAMS:
            begin()
        start(process, command, *rest, **terms)

    with (
        mock.patch.object(torch.nn.Module, "__call__", begin),
        mock.patch.object(subprocess.Popen, "__init__", only_questions),
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
        mock.patch.object(torch, "set_num_threads", lambda count: None),
        mock.patch("ltrobust_bench.cli.status.time", SimpleNamespace(sleep=begin)),  # `--watch` waits for others
    ):
        yield
