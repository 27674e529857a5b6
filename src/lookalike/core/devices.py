"""Which backend JAX computes on: chosen before it starts, told in a line, and its failures as sentences."""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.core.errors import DeviceError
from lookalike.core.files import user_cache
from lookalike.core.journal import said_if_slow

if TYPE_CHECKING:
    import jax

_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}  # the first one computes
_NAMES = {"cpu": "a CPU", "gpu": "a GPU", "tpu": "a TPU"}
_UPGRADE = "`pip install -U 'lookalike[{}]'`, then a fresh process: in a notebook, restart the session"
# What a notebook's image sets for another library, and what a TPU of several hosts needs.
_TPU_VARIABLES = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "CLOUD_TPU_TASK_ID")


def start(device: str) -> "Sequence[jax.Device]":
    """JAX's devices of the kind `device`: "cpu", "gpu", "tpu", or "auto", which takes what JAX finds.

    DeviceError where there is none, or JAX can't start on it. JAX starts once in a process, so that a second call with
    another kind is refused. Devices are those of all processes that `_join` meets.
    """
    with said_if_slow("importing JAX, and starting it"):
        return _started(device)


def _started(device: str) -> "Sequence[jax.Device]":
    import jax

    _join(os.environ)
    if device != "auto":
        # Without effect where JAX has started.
        jax.config.update("jax_platforms", _PLATFORMS[device])  # type: ignore[no-untyped-call]
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # it asserts that it has found something
        raise start_error(str(error), device, os.environ, versions()) from error
    found = devices[0].platform
    if device not in ("auto", found):
        raise DeviceError(
            f"There is no {device.upper()} that JAX can use: it computes on {_NAMES.get(found, found)}.",
            hint=_where(device, os.environ),
        )
    if found != "cpu":
        _keep_programs()
    return devices


def _keep_programs() -> None:
    """Let JAX keep what takes it more than a second to compile in the user's cache, unless it has a place for it.

    Not of a CPU: a program there is compiled for that very processor, and may not run where a home is shared.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):  # without a home it compiles anew
            place = str(user_cache() / ".programs")  # behind a dot, where nothing else is cleared away
            jax.config.update("jax_compilation_cache_dir", place)  # type: ignore[no-untyped-call]


def _join(environment: Mapping[str, str]) -> None:
    """Meet the other processes of a run, where `JAX_COORDINATOR_ADDRESS` says at which host and port they do.

    `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` say how many there are, and which one this is; without them JAX asks Slurm,
    Open MPI or the TPU. DeviceError if they don't meet.
    """
    import jax

    if "JAX_COORDINATOR_ADDRESS" not in environment or jax.distributed.is_initialized():
        return
    numbers = [environment.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID")]
    try:
        count, this = (None if number is None else int(number) for number in numbers)
        jax.distributed.initialize(num_processes=count, process_id=this)
    except (ValueError, RuntimeError) as error:
        raise DeviceError(
            f"The processes at `{environment['JAX_COORDINATOR_ADDRESS']}` did not meet: {_first(str(error))}",
            hint="`JAX_COORDINATOR_ADDRESS=HOST:PORT JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0`, and 1 at the other host",
        ) from error


def start_error(text: str, device: str, environment: Mapping[str, str], installed: Mapping[str, str]) -> DeviceError:
    """What it means that JAX did not start on `device` ("auto": whatever it tried), from the text of its exception.

    `installed` are versions of libraries by name.
    """
    if device == "auto":
        device = "tpu" if "'tpu'" in text else "gpu" if "'cuda'" in text else "cpu"
    library, version = ("libtpu", installed.get("libtpu", "none")) if device == "tpu" else ("its plugin for CUDA", "")
    pair = f"{library} {version} and jaxlib {installed.get('jaxlib', 'none')}".replace("  ", " ")
    upgrade = _UPGRADE.format(device if device != "cpu" else "tpu")
    if held := re.search(r"already in use by process with pid (\d+)", text):
        return DeviceError(
            f"The TPU is held by process {held[1]}.",
            hint=f"end it (`kill {held[1]}`; in a notebook, restart the session), and give the same command again",
        )
    if re.search(r"already in use|resource busy", text):
        return DeviceError(
            "The TPU is held by another process, perhaps of another user.",
            hint="`sudo lsof -w /dev/accel0 /dev/vfio/0` names it; end it, and give the same command again",
        )
    if apart := re.search(r"plugin PJRT API version \(?([\d.]+)\)? and framework PJRT API version \(?([\d.]+)", text):
        return DeviceError(
            f"JAX can't start: {pair} do not belong together (PJRT {apart[1]} and {apart[2]}).", hint=upgrade
        )
    if "libtpu" in installed and re.search(r"'libtpu' has no attribute|Failed to open .*libtpu\.so", text):
        return DeviceError(f"JAX can't start: {pair} do not belong together, or libtpu is damaged.", hint=upgrade)
    odd = [name for name in _TPU_VARIABLES if name in environment]
    if device == "tpu" and odd and "TPU initialization failed" in text:
        return DeviceError(
            f"The TPU did not start: {_first(text)}",
            hint=f"`unset {' '.join(odd)}`, which this machine sets for other libraries, and a fresh process",
        )
    if re.search(r"No TPU Platform|list of known backends|no supported devices|NO_DEVICE|Failed to open|^$", text):
        missing = ", as libtpu is not installed" if device == "tpu" and "libtpu" not in installed else ""
        return DeviceError(f"There is no {device.upper()} that JAX can use{missing}.", hint=_where(device, environment))
    return DeviceError(f"JAX can't start on {_NAMES[device]}: {_first(text)}")


def _first(text: str) -> str:
    """The reason alone, of what JAX says."""
    words = re.sub(r"Unable to initialize backend '\w+': | \((set JAX_PLATFORMS|you may need to).*", "", text.strip())
    return words.partition("\n")[0].rstrip(".") + "."


def _where(device: str, environment: Mapping[str, str]) -> str:
    """How one comes to such a device here."""
    kind = device.upper()
    if "KAGGLE_KERNEL_RUN_TYPE" in environment:
        return f"choose {_NAMES[device]} under Settings, Accelerator; then `pip install -U 'lookalike[{device}]'`"
    if "COLAB_RELEASE_TAG" in environment:
        return (
            f"choose {_NAMES[device]} under Runtime, Change runtime type; then `pip install -U 'lookalike[{device}]'`"
        )
    if device == "cpu":
        return "JAX has started already: choose the device in a fresh process"
    return f"`pip install -U 'lookalike[{device}]'` on a machine with a {kind}, or leave `--device` out"


def described(devices: "Sequence[jax.Device]") -> str:
    """The first line of a run: backend, devices, memory, versions, and what is not used."""
    kinds = {device.device_kind for device in devices}
    first = next(device for device in devices if device.process_index == device.client.process_index())
    count = len({device.process_index for device in devices})
    memory = (first.memory_stats() or {}).get("bytes_limit") if first.platform != "cpu" else None
    size = f"{memory / 2**30:.1f} GiB each" if memory else f"{machine_memory() / 2**30:.1f} GiB in the machine"
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    unused = "".join(f"; there is {name} that JAX does not use" for _, name in unused_accelerators(first.platform))
    processes = f" of {count} processes" if count > 1 else ""
    return f"backend {first.platform}: {len(devices)} x {', '.join(sorted(kinds))}{processes}, {size}; {told}{unused}"


def unused_accelerators(backend: str) -> list[tuple[str, str]]:
    """Accelerators that the system shows while JAX computes on another `backend`: the extra for it, its name."""
    places = (("gpu", "an NVIDIA GPU", "/dev/nvidia0"), ("tpu", "a TPU", "/dev/accel0"))
    return [(extra, name) for extra, name, place in places if backend != extra and Path(place).exists()]


def machine_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    """Of what decides how a run computes, as far as it is installed."""
    found = {}
    for name in ("lookalike", "jax", "jaxlib", "libtpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
