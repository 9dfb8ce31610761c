"""Files that are there whole or not at all, and folders that one run has to itself."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no flock: there two runs in one folder are not told apart
    fcntl = None

PART = ".part"
"""Ends the name of a file that is being written."""
LOCK = ".lock"
TRIES, PAUSE = 5, 0.02
"""Looks at a lock, and seconds between two: ``is_locked`` of another process holds one for some microseconds."""


@contextmanager
def replacing(path: Path) -> Generator[Callable[[*tuple[bytes | memoryview, ...]], None]]:
    """Yields ``write(*pieces)``, after which ``path`` has them: on the disk, then renamed, so never in parts.

    From the beginning of the block to its end ``<name>.<random>.part`` lies beside it, also where ``path`` cannot be
    written: that raises OSError at once, not after an hour of work. Folders are made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")

    def write(*pieces: bytes | memoryview) -> None:
        try:
            with part.open("wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        os.replace(part, path)
        _sync_folder(path.parent)

    try:
        part.touch()
        yield write
    finally:
        with suppress(OSError):  # what is left of it is swept by the next run
            part.unlink(missing_ok=True)


def write_file(content: bytes, path: Path) -> Path:
    """Write a file by rename, its folder made if need be."""
    with replacing(path) as write:
        write(content)
    return path


@contextmanager
def leaving_no_empty(folder: Path) -> Generator[None]:
    """Afterwards empty folders that were made within, ``folder`` and above, are gone; what was there before stays."""
    whole = folder.absolute()
    new = [path for path in (whole, *whole.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in new:
            with suppress(OSError):  # something is in it, or it was never made
                path.rmdir()


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Within, the folder is this process's own; the system ends that with the process, whatever it dies of.

    Raises:
        ValueError: another process has it.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        if not _lock(file, shared=False):
            file.seek(0)
            raise ValueError(f"another run is at work in {folder} ({file.read() or 'just begun'}): wait for its end")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process has the folder to itself; nothing is written."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            return not _lock(file, shared=True)
    except FileNotFoundError:
        return False


def _lock(file: IO[str], *, shared: bool) -> bool:
    """Whether it is locked now, until it is closed."""
    if fcntl is None:
        return True
    for _ in range(TRIES):
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE)
        else:
            return True
    return False


def _sync_folder(folder: Path) -> None:
    """Have the disk know of a renamed file; where folders cannot be synchronised, that is left to the system."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
