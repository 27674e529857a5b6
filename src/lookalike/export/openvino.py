"""OpenVINO's intermediate representation, of the same graph that the ONNX target writes."""

import sys
import tempfile
from pathlib import Path

from lookalike.export import onnx
from lookalike.export.parts import Export, Target, Written, opening


def write(export: Export, directory: Path) -> Written:
    """`model.xml` and `model.bin`, numbers in 32 bits."""
    # Without this module OpenVINO takes a stub; with it, importing OpenVINO tells its makers so over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        onnx.save(onnx.assemble(export), Path(scratch))
        model = openvino.Core().read_model(Path(scratch) / "model.onnx")
        openvino.save_model(model, directory / "model.xml", compress_to_fp16=False)
    code = (
        f"import numpy as np\nimport openvino\nfrom PIL import Image, ImageOps\n\n{opening(export)}\n"
        "exact = {'INFERENCE_PRECISION_HINT': 'f32'}  # without it, processors that can compute in bfloat16 do\n"
        "model = openvino.Core().compile_model('model.xml', 'CPU', exact)\n\n"
        "def embed(path):\n    return model(prepared(path)[None])[0][0]\n"
    )
    return Written(code, onnx.kept(export))


TARGET = Target(write, "openvino", needs=("openvino",), reads=("openvino",), graph=True, int8=True)
