"""Calling the command line in-process."""

from __future__ import annotations

from ltrobust_bench.cli.main import main

FAST = ["--protocol", "smoke", "--device", "cpu"]


def call(capsys, *arguments):
    """Exit code, standard output and standard error of ``ltbench ARGUMENTS``."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *arguments, code=2):
    """The one line that ``ltbench ARGUMENTS`` is refused with."""
    got, _, err = call(capsys, *arguments)
    assert got == code, err
    assert "Traceback" not in err
    (line,) = err.strip().splitlines()
    assert line.startswith("Error: ")
    return line
