"""Entry point: finds the verb's module, and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import click

from ltrobust_bench import interrupt
from ltrobust_bench._version import __version__
from ltrobust_bench.cli.words import echo

VERBS = {
    "run": "train a defense, attack it, write its record",
    "train": "train a defense only",
    "tune": "try settings on held-out training images",
    "sweep": "do the many runs of a plan",
    "status": "how far the jobs of a plan are",
    "eval": "attack a finished network",
    "predict": "what a finished network says of pictures",
    "export": "a finished network as ONNX, TorchScript or pt2",
    "list": "methods, datasets, models, attacks, protocols",
    "show": "one method: paper, recipe, options, deviations",
    "check": "the conformance test of a method",
    "new": "start the folder of a method",
    "data": "look at data sets, download them",
    "report": "leaderboard, tables, figures and web pages from records",
    "doctor": "what is installed, found and wrong here, for bug reports",
    "record": "validate, submit, show, verify, sign, retract, export records",
}


class ReaderGone(Exception):
    """Whoever read the output, ``head`` say, has read enough."""


@contextmanager
def _pipes() -> Iterator[None]:
    """Tells a closed pipe from what click and rich make of it, an exit like any other code's."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        raise ReaderGone from error


class Verbs(click.Group):
    """Loads a verb's module only when that verb is used."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _pipes():  # --help and --version print here
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _pipes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return import_module(f"ltrobust_bench.cli.{cmd_name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]):  # type: ignore[no-untyped-def]
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from ltrobust_bench.errors import UnknownNameError

            raise UnknownNameError("command", args[0], VERBS, "`ltbench --help` explains them.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps: ltbench run --method reat --dataset digits-lt, then ltbench report leaderboard.",
)
@click.version_option(__version__, prog_name="ltbench")
def ltbench() -> None:
    """Benchmark for adversarial robustness under long-tailed data.

    Exit codes: 0 done, 1 a problem was found, 2 wrong usage or bad input, 75 asked to stop (SIGTERM, SIGUSR1, SIGHUP,
    SIGQUIT, SIGXCPU): run it again and it goes on, 130 interrupted (Ctrl-C).
    """


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code when called from Python, exits when called as a program."""
    for stream in (sys.stdout, sys.stderr):  # a path or a name may hold what the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with interrupt.listening(ends=arguments is None):
        code = _stoppable(arguments)
    if arguments is None:
        sys.exit(code)
    return code


def _stoppable(arguments: list[str] | None) -> int:
    if "_LTBENCH_COMPLETE" in os.environ:  # a shell asks what there is: answered, it leaves by SystemExit
        ltbench.main(prog_name="ltbench")
    try:
        return _run(arguments)
    except interrupt.Stopped as stopped:
        return _said(str(stopped), interrupt.REQUEUE)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _said("Interrupted. Nothing is lost but the work in hand: the same command goes on from here.", 130)
    except Exception as error:
        if not interrupt.stopping():
            raise
        # Being stopped can look like something else: an import that fails, a terminal that is gone.
        return _said(f"Stopped ({type(error).__name__}). The same command goes on from here.", interrupt.REQUEUE)


def _said(line: str, code: int) -> int:
    from ltrobust_bench.errors import message

    with suppress(OSError):  # the terminal may be gone
        echo(message(line), err=True)
    return code


def _run(arguments: list[str] | None) -> int:
    from ltrobust_bench.errors import LTBenchError
    from ltrobust_bench.files import FULL

    try:
        result = ltbench.main(
            args=arguments,
            prog_name="ltbench",
            standalone_mode=False,
            obj=sys.argv[1:] if arguments is None else arguments,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ltbench"
        message = " ".join(error.format_message().split())
        return _said(f"Error: {message} `{where} --help` explains what it takes.", error.exit_code)
    except LTBenchError as error:
        return _said(f"Error: {error}", error.exit_code)
    except ReaderGone:
        with suppress(OSError, ValueError):  # what is left in the buffer goes nowhere, without a word at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as asked:  # ours leaves by return; a network's, a method's or a package's code does as it likes
        return _said(f"Error: code that is not ltbench's ended the command (SystemExit: {asked}); nothing is done.", 1)
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # how Python before 3.13 says that a link leads to itself
            raise
        return _said(f"Error: {error}", 2)
    except OSError as error:  # a full disk, a vanished folder
        if interrupt.stopping():
            raise
        where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else ""
        return _said(f"Error: {error.strerror or error}{where}", 1 if error.errno in FULL else 2)
    return result if isinstance(result, int) else 0
