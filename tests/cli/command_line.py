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
    lines = err.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert len([line for line in lines if not line.startswith(("Usage:", "Try "))]) - lines.count("") == 1, err
    return lines[-1]
