"""What the pages and notebooks run in."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environment() -> dict[str, str]:
    """A user's: without the test world's settings, but that programs are compiled quickly; this Python's come first."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "PYTEST_"))}
    return own | {
        "XLA_FLAGS": " ".join(flag for flag in own["XLA_FLAGS"].split() if "device_count" not in flag),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "COLUMNS": "100",
    }
