"""Freed memory is kept for the next activation instead of being given back to the system.

glibc maps every large block anew and unmaps it when it is freed, and the system clears each page on its
first touch. A flow frees and asks for the same blocks at every evaluation: kept, gradients at 64 × 64 are 1.4
times faster (dev/LOG.md). Blocks above 32 MiB are mapped as before, and untouched pages of a picture's
buffer cost nothing.
"""

import ctypes
from functools import cache

# malloc.h: parameters of mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes at the top of the heap that may stay unused; the largest block that comes from there (its limit).
_KEPT, _LARGEST = 2**30, 2**25


@cache
def keep_freed_memory() -> None:
    """For this process, once; nothing where the C library is another than glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _KEPT)
