"""ONNX Runtime, wherever a room runs a graph in it: one way to open it, and nothing is told to its makers."""

import os
from typing import Any


def silence() -> None:
    """Before it is imported: since 1.29 it writes an id of the machine to disk and reports the models that it loads."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when it is imported


def session(model: str | os.PathLike[str] | bytes, threads: int | None = None) -> Any:
    """An `InferenceSession` on the CPU, of a file or of bytes; `threads` work on a call, None: as many as it likes."""
    silence()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimisations
    given = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
