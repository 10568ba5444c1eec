"""What ``run.sh`` needs on a machine with a GPU and no network: ``python benchmarks/gpu/prepare.py --data-dir data``.

Wheels of what such a machine lacks beside PyTorch and its usual company, CIFAR-10-LT in one file, and the commit that
is checked out, which records name, below ``.gpu`` (which git ignores). The checkout and ``.gpu`` together are what
travels: it says how large they are, with exit code 1 if that is too much.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
WHEELS = (
    "annotated-types",
    "pydantic",
    "pydantic-core",
    "typing-inspection",
    "typing-extensions",
    "platformdirs",
    "pyautoattack",
)
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
LEFT_OUT = {"pyautoattack": "/examples/"}
"""Parts of wheels that are not needed: pyautoattack's examples are 42 of its 42.4 MB."""


def download(folder: Path, python: str) -> None:
    """Wheels of the versions that are installed here."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation",
        "cp",
    ]
    command += [
        "--python-version",
        python,
        *(part for name in PLATFORMS for part in ("--platform", name)),
        "-d",
        str(folder),
    ]
    subprocess.run([*command, *(f"{name}=={version(name)}" for name in WHEELS)], check=True)


def slim(wheel: Path, part: str) -> None:
    """The wheel without files whose path has this part in it."""
    smaller = wheel.with_suffix(".smaller")
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as kept:
        for info in whole.infolist():
            content = whole.read(info)
            if info.filename.endswith(".dist-info/RECORD"):
                content = b"".join(line for line in content.splitlines(True) if part.encode() not in line)
            if part not in info.filename:
                kept.writestr(info, content)
    smaller.replace(wheel)


def pack(path: Path, data_dir: Path, limit_test: int) -> None:
    """CIFAR-10-LT, imbalance ratio 50, with so many test images."""
    from ltrobust_bench.cli.main import main as ltbench

    code = ltbench(
        [
            "data",
            "pack",
            "cifar10-lt",
            str(path),
            "--data-dir",
            str(data_dir),
            "--limit-test",
            str(limit_test),
            "--force",
        ]
    )
    if code:
        sys.exit(code)


def commit(folder: Path) -> None:
    """The commit that is checked out, without its history, as the ``.git`` of a copy that has none."""
    with tempfile.TemporaryDirectory() as fresh:
        quiet = ["git", "clone", "--quiet", "--depth", "1", "--no-checkout", f"file://{ROOT}", fresh]
        subprocess.run(quiet, check=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(fresh) / ".git", folder)


def size(folder: Path) -> int:
    """Bytes of what git tracks, and of what lies in ``folder``."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    tracked = [ROOT / name.decode() for name in listed if name]
    return sum(path.stat().st_size for path in [*tracked, *folder.rglob("*")] if path.is_file())


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="LTBENCH_DATA", help="Folder of the real CIFAR-10.")
@click.option("--python", default="3.12", show_default=True, help="Python's version there.")
@click.option("--limit-test", default=1000, show_default=True, help="Test images that are packed; all are 10,000.")
@click.option("--most", default=64.0, show_default=True, help="MB that may travel.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / ".gpu", help="Default: .gpu in the checkout.")
def main(data_dir: Path | None, python: str, limit_test: int, most: float, output: Path) -> None:
    """Put wheels and data below .gpu; see the file's head."""
    wheels = output / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for old in wheels.glob("*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as fresh:
        download(Path(fresh), python)
        for name, part in LEFT_OUT.items():
            for wheel in Path(fresh).glob(f"{name}-*.whl"):
                slim(wheel, part)
        for wheel in Path(fresh).glob("*.whl"):
            (wheels / wheel.name).write_bytes(wheel.read_bytes())
    commit(output / "git")
    if data_dir is None:
        click.echo("without --data-dir there is no data; training.py and autoattack.py will say that they skipped")
    else:
        pack(output / "cifar10-lt.zip", data_dir, limit_test)
    total = size(output) / 1e6
    click.echo(f"{total:.1f} MB travel: the checkout and {output}; there: bash benchmarks/gpu/run.sh")
    if total > most:
        click.echo(f"Error: that is more than {most:g} MB; take a smaller --limit-test.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
