"""Settings of a process of the command line, made before torch and numpy are loaded."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
from types import FrameType

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names in glibc's malloc.h
_KEPT = 1 << 30


class Terminated(BaseException):
    """SIGTERM came: the process is to end as after Ctrl-C, with what it holds put back."""


def end_at_sigterm() -> None:
    """Have SIGTERM raise ``Terminated`` in the main thread, the only one that can ask for it."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def prepare() -> None:
    """All settings; call it before torch and numpy are imported."""
    _keep_freed_memory()
    _let_waiting_threads_sleep()
    _use_one_thread_for_small_matrices()


def _keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory instead of handing it back after each layer.

    Otherwise every forward pass pays for its activations again in page faults, up to half of its time on a CPU.
    Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(setting, _KEPT)


def release_freed_memory() -> None:
    """Let glibc hand back what it keeps: where memory is short, others need it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _let_waiting_threads_sleep() -> None:
    """Let torch's threads wait for microseconds, not milliseconds, before they sleep, unless the user set it.

    Between two layers they would keep the cores from the threads of the compiled kernel.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _use_one_thread_for_small_matrices() -> None:
    """Let numpy's linear algebra use one thread, unless the user set it: here it multiplies small matrices only.

    More threads wait for each other longer than they work, on cores that other processes could use.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
