"""Settings of the process that runs the command line, made before torch is loaded."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names in glibc's malloc.h
_KEPT = 1 << 30


def prepare() -> None:
    """Both settings; call it before torch is imported."""
    _keep_freed_memory()
    _let_waiting_threads_sleep()


def _keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory instead of handing it back after each layer.

    Otherwise every forward pass pays for its activations again in page faults, up to half of its time on a CPU.
    Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(setting, _KEPT)


def _let_waiting_threads_sleep() -> None:
    """Let torch's threads wait for microseconds, not milliseconds, before they sleep, unless the user set it.

    Between two layers they would keep the cores from the threads of the compiled kernel.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
