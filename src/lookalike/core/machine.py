"""What the machine gives this process."""

import os
import platform
from pathlib import Path


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def multiplies_bytes() -> bool:
    """Whether the processor has instructions that add products of bytes in 32 bits (VNNI, AMX, Arm's dot product).

    Without them such products are hardly faster than float32, and on older x86 cut off at 16 bits.
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux: every Mac with an Arm processor has them
        return platform.system() == "Darwin" and platform.machine() == "arm64"
    return not words.isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
