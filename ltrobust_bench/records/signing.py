"""Who signed a statement: SSH signatures, made and checked by OpenSSH's ``ssh-keygen -Y``. No torch here.

A signature is a file ``<statement>.sig`` beside the statement. Keys that count are listed in the file ``signers``
beside the folder ``records``, in OpenSSH's allowed-signers format (ssh-keygen(1), ALLOWED SIGNERS): a name, perhaps
``valid-after`` and ``valid-before``, and the public key. The date that counts is the one that the statement bears.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.files import write_bytes
from ltrobust_bench.records.strict import read_bytes
from ltrobust_bench.terms import printable

SIGNERS = "signers"
"""The file beside ``records`` that lists keys; it makes a board a public one."""
NAMESPACE = "ltrobust-bench"
"""Of the signatures: what was signed for another purpose does not count here."""
SUFFIX = ".sig"
LONGEST = 100_000
"""Bytes of a signature or a list of keys."""
MISSING = "ssh-keygen is not installed, so signatures cannot be checked; install OpenSSH 8.9 or newer"


@dataclass(frozen=True)
class Signature:
    """What a signature is worth.

    Attributes:
        signer: the name that the list of keys gives the key; empty: it does not count.
        why: in words.
    """

    signer: str
    why: str


def signature_of(path: Path) -> Path:
    """The file of a statement's signature."""
    return path.with_name(path.name + SUFFIX)


def sign(path: Path, key: Path) -> Path:
    """Sign a statement; returns the signature's file, which takes the place of an earlier one.

    Args:
        key: a private SSH key, or a public one whose private half the agent holds.

    Raises:
        UsageError: if ssh-keygen refuses, in its words.
    """
    done = _keygen("sign", "-q", "-f", str(key), "-n", NAMESPACE, given=read_bytes(path))
    if done.returncode:
        raise UsageError(f"{path} was not signed: {_words(done)}.")
    written = signature_of(path)
    write_bytes(written, done.stdout)
    return written


def checked(path: Path, signers: Path, when: datetime) -> Signature:
    """Who signed a file with a key that counted at a time, going by the list in ``signers``."""
    signature = signature_of(path)
    if not signature.is_file() or signature.is_symlink():
        return Signature("", "nobody signed it")
    try:
        content, signed = read_bytes(path), read_bytes(signature)
        if not signers.is_file() or len(signed) > LONGEST:
            return Signature("", "its signature cannot be checked: there is no list of keys, or it is no signature")
        stamp = signers.stat()
        return _checked(content, str(signature), signed, str(signers), stamp.st_mtime_ns, f"{when:%Y%m%d%H%M%S}")
    except (RecordError, OSError) as error:
        return Signature("", f"its signature cannot be read: {printable(str(error), 200)}")
    except UsageError as error:
        return Signature("", str(error))


@lru_cache(maxsize=10_000)
def _checked(content: bytes, signature: str, signed: bytes, signers: str, changed: int, when: str) -> Signature:
    given = ("-s", signature, "-f", signers, "-O", f"verify-time={when}")
    found = _keygen("find-principals", *given)
    name = found.stdout.decode(errors="replace").partition("\n")[0].partition(",")[0].strip()
    if found.returncode or not name:
        return Signature("", f"no key in {SIGNERS} that counted on its date signed it")
    done = _keygen("verify", *given, "-n", NAMESPACE, "-I", name, given=content)
    if done.returncode:
        return Signature("", f"its signature by {printable(name)} does not fit: {_words(done)}")
    return Signature(printable(name), f"signed by {printable(name)}")


@dataclass(frozen=True)
class Key:
    """A line of a list of keys: the names of its holder, and the public key as text."""

    line: int
    names: tuple[str, ...]
    key: str


def keys(signers: Path) -> Iterator[Key]:
    """The keys in a list.

    Raises:
        RecordError: for a line that lists no single person's key, or a key twice; it names the line.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(read_bytes(signers).decode("utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        names, _, rest = line.strip().partition(" ")
        words = rest.split()
        kind = next((i for i, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-", "sk-"))), None)
        if kind not in (0, 1) or len(words) < kind + 2 or not line.isprintable():
            raise RecordError(f"line {number} is no `name[,name] [option,option] key-type key`")
        if set('*?!"') & set(names) or any(word.startswith("cert-authority") for word in words[:kind]):
            raise RecordError(f"line {number} must list one person's key: no patterns, no cert-authority")
        key = words[kind + 1]
        if key in seen:
            raise RecordError(f"line {number} lists the key of line {seen[key]} again")
        seen[key] = number
        yield Key(number, tuple(names.split(",")), key)


def _keygen(verb: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", "-Y", verb, *arguments]
    try:
        return subprocess.run(
            command, input=given, capture_output=True, timeout=60, check=False, env={**os.environ, "TZ": "UTC"}
        )
    except FileNotFoundError:
        raise UsageError(MISSING) from None
    except subprocess.TimeoutExpired:
        raise UsageError("ssh-keygen did not answer within a minute") from None


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return printable(said[-1], 200) if said else f"ssh-keygen ended with code {done.returncode}"
