"""A hostile world for every test.

Warnings are errors (pyproject.toml), sockets are blocked, eight virtual CPU devices must be there, dtypes are
never promoted silently, ranks never at all, and every annotation of the package is checked as it is called.
"""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before anything imports JAX: these are read once, when its CPU backend starts.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests import ONNX Runtime themselves, and its sockets are not Python's

import pytest

# A shell that starts a job in the background has it ignore Ctrl-C, and children inherit that; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

REFERENCE = {"torch", "transformers", "faiss", "sklearn"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason that the summary counts, what needs libraries or pictures that are not here."""
    for item in items:
        marker = item.get_closest_marker("reference")
        if marker:
            missing = [name for name in (marker.args or ("torch",)) if importlib.util.find_spec(name) is None]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"reference library not installed: {', '.join(missing)}"))
        if item.get_closest_marker("data") and not os.environ.get("LIKENESS_DATA"):
            item.add_marker(pytest.mark.skip(reason="LIKENESS_DATA is not set: no real pictures"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs of models go to a cache of the test run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def devices() -> list[object]:
    """The eight virtual devices; a failure, not a skip, if they are not there."""
    import jax

    found = jax.devices()
    assert len(found) == 8, f"expected 8 virtual CPU devices, found {len(found)}"
    return list(found)


@pytest.fixture(scope="session")
def data_path() -> Path:
    """Where the real pictures lie; for tests marked `data`."""
    return Path(os.environ["LIKENESS_DATA"])
