"""Reading files that somebody else may have made: plain files only, and never more than is said. No torch here.

Whatever lies at a path, reading it through here ends: a pipe or a device is refused instead of waited for, a file
that is larger than it may be is not read, and an archive that unfolds into more than it may is not unfolded. Problems
are ``OSError`` and ``ValueError``, whose text says what was found; callers name the file and what to do.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

TEXT = 1_000_000
"""Bytes of a text file that people write or read: a plan, a card, a table."""
TOML = 200_000
"""Bytes of a TOML file; the reader's time grows with the square of the longest key."""
PART = 2**24
"""Bytes of an array that are read at once."""
KINDS = "iufbU"
"""Kinds of numpy arrays that are read: numbers, bits and text; objects are pickled code."""


def plain_file(path: Path | str) -> BinaryIO:
    """A plain file, opened to be read, unbuffered.

    Raises:
        OSError: if it is missing, or is a folder, a pipe, a socket or a device, which might never end.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it; asking first could see another file.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        return os.fdopen(handle, "rb", buffering=0)
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path | str, most: int | None = TEXT) -> bytes:
    """What a plain file holds.

    Args:
        most: bytes that it may have; None: as many as there are.

    Raises:
        OSError: see :func:`plain_file`.
        ValueError: if it has more.
    """
    with plain_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is None:
            return file.read()
        # Not `most` at once: room for it would be made, and cleared, for every small file.
        data = _whole(file, min(size, most) + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return data


def _whole(file: BinaryIO, count: int) -> bytes:
    """At most so many bytes; one read of the system may give fewer than there are."""
    parts = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_text(path: Path | str, most: int = TEXT) -> str:
    """The text in a plain file, UTF-8.

    Raises:
        OSError, ValueError: see :func:`read_bytes`; also for bytes that are no text.
    """
    return read_bytes(path, most).decode("utf-8")


def read_toml(path: Path | str) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        OSError, ValueError: see :func:`read_text`; also for text that is no TOML.
    """
    return parse_toml(read_text(path, TOML))


def parse_toml(text: str) -> dict[str, Any]:
    """The table in a TOML text.

    Raises:
        ValueError: for text that is no TOML, or is nested as no file of ours is.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def unfolds(file: zipfile.ZipFile, most: int) -> None:
    """See that a zip file's members unfold into no more bytes than that, before any is.

    Raises:
        ValueError: saying how many.
    """
    total = sum(member.file_size for member in file.infolist())
    if total > most:
        raise ValueError(f"it would unfold into {total / 1e6:,.0f} MB, and {most / 1e6:,.0f} MB are allowed")


def stored(file: BinaryIO) -> None:
    """See that a zip file's members lie in it as they are, and are together no larger than it.

    Raises:
        ValueError: if one is compressed or encrypted, or they are larger.
        zipfile.BadZipFile: for a file that is no zip file.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise ValueError("a member is compressed or encrypted; they must be stored as they are")
        unfolds(archive, size)


def read_arrays(content: bytes | BinaryIO, names: Iterable[str] | None, most: int) -> dict[str, np.ndarray]:
    """Arrays in a ``.npz`` file.

    Args:
        content: the file, open or as bytes.
        names: of the arrays, others are left alone; None: all.
        most: bytes that all members together may unfold into.

    Raises:
        ValueError: if it is no such file, lacks one, would unfold into more, or a header states another size than the
            array has, or objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content) if isinstance(content, bytes) else content) as archive:
            unfolds(archive, most)
            if names is None:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
            return {name: _array(archive, name, most) for name in names}
    except Exception as error:  # noqa: BLE001 - half of a zip file makes of its readers whatever it does
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _array(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    import numpy as np
    from numpy.lib import format as npy

    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it has no array `{name}`")
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        version = npy.read_magic(file)
        if version not in headers:
            raise ValueError(f"`{name}` has a header of a version that plain arrays do not need")
        shape, by_columns, dtype = headers[version](file)
        if dtype.kind not in KINDS or not dtype.itemsize:
            raise ValueError(f"`{name}` holds no numbers but objects of type {dtype}")
        if any(type(length) is not int or length < 0 for length in shape):
            raise ValueError(f"`{name}` says that it has shape {shape}")
        # Of nothing there may be as much as anybody likes; its other axes must be such as could be filled.
        if math.prod(length or 1 for length in shape) * dtype.itemsize > most:
            raise ValueError(f"`{name}` says that it has shape {shape}, which is larger than is allowed")
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"`{name}` says that it has shape {shape}, and has another size")
        array = np.empty(math.prod(shape), dtype)
        for start in range(0, size, PART):
            array.view(np.uint8)[start : start + PART] = np.frombuffer(file.read(PART), np.uint8)
    return array.reshape(shape, order="F" if by_columns else "C")
