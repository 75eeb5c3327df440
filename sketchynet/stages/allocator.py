"""How this process handles freed memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # numbers of <malloc.h>


def keep_freed_memory() -> None:
    """Lets glibc keep freed buffers instead of returning them to the system after every operation.

    Training on a CPU frees and allocates the same activations in every step; each return costs page faults
    that took a quarter of a MobileNetV2 step. Other C libraries and systems are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 256 << 20)
