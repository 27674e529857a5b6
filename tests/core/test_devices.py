"""Failures of JAX's start, in the words that it, libtpu and CUDA have for them, become sentences with a way out."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from lookalike.core.devices import described, start, start_error, unused_accelerators
from lookalike.core.errors import DeviceError

VERSIONS = {"lookalike": "0.2", "jax": "0.10.2", "jaxlib": "0.10.2", "libtpu": "0.0.17"}
END = " (set JAX_PLATFORMS='' to automatically choose an available backend)"
KAGGLE = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "ISTPUVM": "1", "TPU_PROCESS_ADDRESSES": "local"}
UPGRADE = "`pip install -U 'lookalike[tpu]'`, then a fresh process"


@pytest.mark.parametrize(
    ("device", "text", "environment", "message", "hint"),
    [
        (
            "tpu",
            "ABORTED: The TPU is already in use by process with pid 2718466. Not attempting to load libtpu.so in this "
            "process.",
            {},
            "The TPU is held by process 2718466.",
            "`kill 2718466`",
        ),
        (
            "tpu",
            "FAILED_PRECONDITION: TPU initialization failed: open(/dev/vfio/0): Device or resource busy: Device or "
            "resource busy; Couldn't open iommu group /dev/vfio/0",
            {},
            "The TPU is held by another process, perhaps of another user.",
            "`sudo lsof -w /dev/accel0 /dev/vfio/0`",
        ),
        (
            "auto",
            "INVALID_ARGUMENT: Mismatched PJRT plugin PJRT API version (0.47) and framework PJRT API version 0.54).",
            KAGGLE,
            "JAX can't start: libtpu 0.0.17 and jaxlib 0.10.2 do not belong together (PJRT 0.47 and 0.54).",
            UPGRADE,
        ),
        (
            "tpu",
            "module 'libtpu' has no attribute 'get_library_path'",
            {},
            "JAX can't start: libtpu 0.0.17 and jaxlib 0.10.2 do not belong together, or libtpu is damaged.",
            UPGRADE,
        ),
        (
            "tpu",
            "INTERNAL: Failed to open /usr/lib/libtpu/libtpu.so: /usr/lib/libtpu/libtpu.so: cannot open shared object "
            "file: No such file or directory",
            {},
            "JAX can't start: libtpu 0.0.17 and jaxlib 0.10.2 do not belong together, or libtpu is damaged.",
            UPGRADE,
        ),
        (
            "auto",
            "UNKNOWN: TPU initialization failed: Invalid --2a886c8_slice_builder_worker_addresses specified. Expected "
            "4 worker addresses, got 1.",
            KAGGLE,
            "The TPU did not start: UNKNOWN: TPU initialization failed: Invalid "
            "--2a886c8_slice_builder_worker_addresses specified. Expected 4 worker addresses, got 1.",
            "`unset TPU_PROCESS_ADDRESSES`",
        ),
        (
            "tpu",
            "UNAVAILABLE: No TPU Platform available.",
            {"COLAB_RELEASE_TAG": "release-colab"},
            "There is no TPU that JAX can use.",
            "choose a TPU under Runtime, Change runtime type",
        ),
        (
            "tpu",
            "Backend 'tpu' is not in the list of known backends: cpu",
            KAGGLE,
            "There is no TPU that JAX can use.",
            "choose a TPU under Settings, Accelerator",
        ),
        (
            "gpu",
            "INTERNAL: no supported devices found for platform CUDA.",
            {},
            "There is no GPU that JAX can use.",
            "`pip install -U 'lookalike[gpu]'` on a machine with a GPU",
        ),
        (
            "tpu",
            "INTERNAL: something new\nmore",
            {},
            "JAX can't start on a TPU: INTERNAL: something new.",
            "`lookalike doctor`",
        ),
    ],
)
def test_what_jax_says_becomes_what_to_do(device, text, environment, message, hint):
    platform = "cuda" if device == "gpu" else "tpu"
    told = start_error(f"Unable to initialize backend '{platform}': {text}{END}", device, environment, VERSIONS)
    assert told.message.startswith(message)
    assert hint in told.hint


def test_the_first_line_says_what_computes(devices):
    line = described(devices)
    assert line.startswith("backend cpu: 8 x cpu, ")
    assert f"jax {jax.__version__}" in line
    assert "jaxlib" in line
    assert "lookalike" in line


def test_a_backend_that_has_started_stays(devices):
    assert list(start("cpu")) == devices
    with pytest.raises(DeviceError, match=r"There is no TPU that JAX can use: it computes on a CPU\."):
        start("tpu")
    jax.config.update("jax_platforms", "cpu")


@pytest.mark.parametrize(("platform", "kept"), [("tpu", True), ("gpu", True), ("cpu", False)])
def test_what_an_accelerator_runs_is_compiled_once(platform, kept, tmp_path, monkeypatch):
    """By a stand-in for the device: JAX is told where, unless it knows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=platform)])
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        start("auto")
        assert jax.config.jax_compilation_cache_dir == (str(tmp_path / "lookalike" / ".programs") if kept else None)
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        start("auto")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_processes_that_do_not_meet_are_told(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(DeviceError, match=r"The processes at `127\.0\.0\.1:9` did not meet: ") as told:
        start("cpu")
    assert "JAX_PROCESS_ID=0" in told.value.hint


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_without_one_the_command_ends_with_a_sentence(device, tmp_path):
    """In a fresh process, where JAX starts as the option says."""
    if unused_accelerators("cpu"):
        pytest.skip("this machine has an accelerator")
    code = "import sys; from lookalike.commands import main; sys.exit(main(sys.argv[1:]))"
    flags = ["--data", "nowhere", "--model", "nowhere", "--out", str(tmp_path / "run"), "--device", device]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "head", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"error: There is no {device.upper()} that JAX can use" in done.stderr
    assert "\n\nhint: `pip install -U 'lookalike[" in done.stderr
    assert not (tmp_path / "run").exists()
