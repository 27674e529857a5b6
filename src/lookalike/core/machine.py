"""What the machine gives this process; ONNX Runtime on it, opened in one way, and telling its makers nothing."""

import os
import platform
from pathlib import Path
from typing import Any


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that this process may still take: what the machine has free, or its container less; None: nobody says.

    What a container holds of files counts as free, as it does in the machine's own figure: who reads a collection has
    soon filled all of it with that.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = int(held["active_file"]) + int(held["inactive_file"])
    except (OSError, ValueError, KeyError):  # no container, or one without a limit
        return free
    return min(free, limit - used + files)


def multiplies_bytes() -> bool:
    """Whether the processor has instructions that add products of bytes in 32 bits (VNNI, AMX, Arm's dot product).

    Without them such products are hardly faster than float32, and on older x86 cut off at 16 bits.
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux: every Mac with an Arm processor has them
        return platform.system() == "Darwin" and platform.machine() == "arm64"
    return not words.isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def silence_onnx() -> None:
    """Before it is imported: since 1.29 it writes an id of the machine to disk and reports the models that it loads."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def onnx_session(model: Path | bytes, threads: int | None = None) -> Any:
    """An `InferenceSession` on the CPU, of a file or of bytes; `threads` work on a call, None: as many as it likes."""
    silence_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimisations
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
