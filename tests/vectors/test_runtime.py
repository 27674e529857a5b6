"""An embedder against the JAX encoder; its fixed shapes, its cache, and what it does not import."""

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import lookalike
from lookalike.core.errors import EncoderError, ImageError, SourceError, UsageError
from lookalike.core.shapes import l2_normalize
from lookalike.encoders.directory import write_model
from lookalike.vectors.engines import Known, opened
from lookalike.vectors.runtime import Embedder, accelerated, load, prepared


def pictures(count: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("runtime", ["onnx", "jax"])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(
    ("kind", "l2_normalize_input", "zooms"), [("linear", True, (0.8,)), ("linear", False, ()), ("identity", True, ())]
)
def test_equals_the_encoder(
    parts: Callable, runtime: str, mirror: bool, kind: str, l2_normalize_input: bool, zooms: tuple[float, ...]
) -> None:
    import jax.numpy as jnp

    from lookalike.encoders.encoder import Encoder

    config, tensors = parts(mirror, kind=kind, l2_normalize_input=l2_normalize_input)
    encoder = Encoder.from_parts(replace(config, zooms=zooms), tensors)
    embedder = Embedder.of(encoder, runtime, batch=4)
    images = pictures(6)
    features = np.asarray(encoder.features(jnp.asarray(images)))
    scale = np.abs(features).max()
    np.testing.assert_allclose(embedder.features(images), features, atol=1e-5 * scale)
    mirrored = np.asarray(encoder.features(jnp.asarray(images[:, :, ::-1])))
    np.testing.assert_allclose(embedder.features(images[:, :, ::-1]), mirrored, atol=1e-5 * scale)
    given = (features + mirrored) / 2 if mirror else features
    projected = embedder.project(features, mirrored if mirror else None)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected, np.asarray(encoder.project(jnp.asarray(given))), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-6)
    seen = jnp.asarray(np.stack([encoder.config.preprocess(image) for image in images]))
    np.testing.assert_allclose(embedder.embed(list(images)), np.asarray(encoder(seen)), atol=1e-5)
    assert embedder.fingerprint == encoder.fingerprint
    assert embedder.features_fingerprint == encoder.features_fingerprint
    assert embedder.embedding_column == f"embedding_{encoder.fingerprint[:8]}_float32"
    assert embedder.dimension == projected.shape[1]


def test_features_of_zeros_stay_finite(parts: Callable) -> None:
    from lookalike.encoders.encoder import Encoder

    embedder = Embedder.of(Encoder.from_parts(*parts(kind="identity")), "onnx")
    np.testing.assert_array_equal(embedder.project(np.zeros((2, 16), np.float32)), np.zeros((2, 16), np.float32))


def test_mirrored_features_are_given_exactly_when_needed(model: str) -> None:
    features = np.ones((2, 16), np.float32)
    with pytest.raises(ValueError, match="mirror = False"):
        load(model, "onnx").project(features, features)


def test_a_picture_does_not_depend_on_its_company(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: alone on all cores, in a batch with one thread an image, and with other numbers of cores."""
    images = pictures(9)
    embedder = load(model, "onnx")
    together = embedder.features(images)
    alone = np.concatenate([embedder.features(images[i : i + 1]) for i in range(9)])
    np.testing.assert_array_equal(together, alone)
    for cores in (1, 3, 16):
        monkeypatch.setattr("lookalike.vectors.engines.cores", lambda n=cores: n)
        np.testing.assert_array_equal(load(model, "onnx").features(images), together)


def test_jax_compiles_once(model: str) -> None:
    embedder = load(model, "jax", batch=4)
    images = pictures(11)
    whole = embedder.features(images)  # batches of 4, 4, 3
    assert embedder.engine.compiles == 1
    for count in (1, 4, 3, 8):
        np.testing.assert_array_equal(embedder.features(images[:count]), whole[:count])
    assert embedder.features(images[:0]).shape == (0, 16)
    assert embedder.engine.compiles == 1


def test_accelerators_compute_in_bfloat16_unless_asked_for_jax(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(5)
    exact = load(model, "jax").features(images)
    np.testing.assert_allclose(exact, load(model, "onnx").features(images), atol=1e-5 * np.abs(exact).max())
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")  # JAX has started on the CPU, and stays there
    embedder = load(model)
    half = embedder.features(images)
    assert embedder.engine.name == "jax"
    assert np.abs(half - exact).max() > 1e-4 * np.abs(exact).max()
    assert (np.sum(l2_normalize(half) * l2_normalize(exact), axis=1) >= 0.999).all()


def test_jax_splits_a_batch_over_all_devices(
    model: str, devices: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lookalike.core.mesh import make_mesh

    mesh = make_mesh(devices)
    monkeypatch.setattr("lookalike.core.mesh.make_mesh", lambda: mesh)
    embedder = load(model, "jax", batch=10)
    assert embedder.engine.batch == 16
    images = pictures(21)
    expected = load(model, "onnx").features(images)
    np.testing.assert_allclose(embedder.features(images), expected, atol=1e-5 * np.abs(expected).max())
    assert embedder.engine.compiles == 1


def test_a_tower_lies_on_devices_only_while_features_are_made(
    model: str, devices: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run asks for those of the tower that it was given, and then trains."""
    import gc

    import jax

    from lookalike.core.mesh import make_mesh

    def held() -> int:
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    mesh, before = make_mesh(devices), held()
    monkeypatch.setattr("lookalike.core.mesh.make_mesh", lambda: mesh)
    embedder = load(model, "jax")
    assert held() == before
    first = embedder.features(pictures(3))
    assert held() > before
    embedder.engine.rest()
    assert held() == before
    np.testing.assert_array_equal(embedder.features(pictures(3)), first)
    assert embedder.engine.compiles == 1


def test_embeds_files_and_arrays_of_any_shape(model: str, tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (20 + 9 * i, 50, 3), dtype=np.uint8) for i in range(5)]
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        PIL.Image.fromarray(image).save(paths[-1])
    embedder = lookalike.load(model, "onnx", batch=2)
    from_arrays = embedder.embed(images)
    assert from_arrays.shape == (5, 5)
    np.testing.assert_array_equal(embedder.embed([paths[0], str(paths[1]), *images[2:]]), from_arrays)
    expected = embedder.project(embedder.features(np.stack([embedder.config.preprocess(image) for image in images])))
    np.testing.assert_allclose(from_arrays, expected, atol=1e-5)  # BLAS may add two rows in another order than five
    assert embedder.embed([]).shape == (0, 5)


def test_one_image_many_and_any_iterable(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedder = load(model, "onnx", batch=2)
    images = pictures(5, 30)
    PIL.Image.fromarray(images[0]).save(tmp_path / "0.png")
    expected = np.stack([embedder.embed([image])[0] for image in images])
    np.testing.assert_allclose(embedder.embed(images), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(image for image in images), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(map(PIL.Image.fromarray, images), batch_size=3), expected, atol=1e-5)
    data = (tmp_path / "0.png").read_bytes()
    for one in (tmp_path / "0.png", str(tmp_path / "0.png"), data, images[0], PIL.Image.fromarray(images[0])):
        assert embedder.embed(one).shape == (5,)
        np.testing.assert_allclose(embedder.embed(one), expected[0], atol=1e-5)
    assert capsys.readouterr().err == ""
    embedder.embed(images, progress=True)
    assert "embed 5/5 images" in capsys.readouterr().err


def test_images_that_can_not_be_read_are_left_out_or_nan(model: str, tmp_path: Path) -> None:
    embedder = load(model, "onnx", batch=2)
    images = [*pictures(3)]
    mixed = [images[0], b"no image", images[1], tmp_path / "absent.jpg", b"", images[2]]
    good = [0, 2, 5]
    expected = embedder.embed(images)
    vectors, failed = embedder.embed(mixed, on_error="skip")
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert [*failed] == [1, 3, 4]
    assert [type(error) for error in failed.values()] == [ImageError, SourceError, ImageError]
    vectors, failed = embedder.embed(iter(mixed), on_error="nan")
    np.testing.assert_allclose(vectors[good], expected, atol=1e-5)
    assert np.isnan(vectors[[*failed]]).all()
    assert vectors.shape == (6, 5)
    vectors, failed = embedder.embed([b"a", b"b", b"c"], on_error="skip")
    assert vectors.shape == (0, 5)
    assert len(failed) == 3


def test_without_antialiasing_a_jpeg_is_decoded_whole(tmp_path: Path, parts: Callable) -> None:
    """A reduced one has other pixels, and single pixels are what such an encoder looks at."""
    config, tensors = parts()
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(40, 0).repeat(40, 1)
    PIL.Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    whole = np.asarray(PIL.Image.open(tmp_path / "a.jpg"))
    for antialias in (True, False):
        path = tmp_path / str(antialias)
        write_model(path, replace(config, preprocess=replace(config.preprocess, antialias=antialias)), tensors, {})
        embedder = load(path, "onnx")
        of_file, of_array = embedder.embed([tmp_path / "a.jpg"]), embedder.embed([whole])
        assert np.array_equal(of_file, of_array) is not antialias


def test_what_can_not_be_embedded_is_named(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedder = load(model, "onnx")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.jpg`: Not an image"):
        embedder.embed([tmp_path / "text.jpg"])
    with pytest.raises(SourceError, match=r"absent\.jpg` can't be read: No such file"):
        embedder.embed([str(tmp_path / "absent.jpg")])
    unusual = inspect.unwrap(Embedder.embed)  # past the tests' own check of annotations
    with pytest.raises(ImageError, match="`5 bytes`: Not an image"):
        embedder.embed([b"bytes"])
    for wrong in (3, None):
        with pytest.raises(ImageError, match="expected a path, bytes, an array or an image"):
            unusual(embedder, [wrong])
        with pytest.raises(UsageError, match="`embed` takes images, and was given a"):
            unusual(embedder, wrong)
    with pytest.raises(SourceError, match="can't be read"):
        embedder.embed(["a\0b"])
    with pytest.raises(UsageError, match="`on_error` is 'ignore'"):
        unusual(embedder, [], on_error="ignore")
    capsys.readouterr()
    with pytest.raises(EncoderError, match="no model directory"):
        load(tmp_path / "absent")
    assert capsys.readouterr().err == ""


START = """
import sys, numpy
import lookalike
embedder = lookalike.load(sys.argv[1], "onnx")
vectors = embedder.embed([numpy.full((30, 40, 3), 99, numpy.uint8)])
numpy.save(sys.argv[2], vectors)
print(*sorted({"jax", "onnx", "onnxruntime"} & set(sys.modules)))
"""


def test_a_second_start_builds_nothing(model: str, tmp_path: Path, cache_home: Path) -> None:
    def start(name: str) -> tuple[str, np.ndarray, str]:
        command = [sys.executable, "-W", "error", "-c", START, model, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip(), np.load(tmp_path / name), done.stderr

    modules, first, said = start("1.npy")
    assert (modules, said) == ("onnx onnxruntime", "")
    modules, second, said = start("2.npy")
    assert (modules, said) == ("onnxruntime", "")
    np.testing.assert_array_equal(first, second)
    assert len(list((cache_home / "lookalike").iterdir())) == 1


def test_nothing_is_reported_home(model: str, tmp_path: Path) -> None:
    """ONNX Runtime keeps an id of the machine in the cache and tells its makers of each session, unless told not to."""
    homes = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache")}
    loud = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    command = [sys.executable, "-c", START, model, str(tmp_path / "vectors.npy")]
    subprocess.run(command, env=loud | homes, capture_output=True, check=True)
    assert [path.name for path in (tmp_path / "home" / ".cache").iterdir()] == ["lookalike"]


def test_a_changed_model_is_seen(model: str, tmp_path: Path, parts: Callable) -> None:
    images = pictures(3)
    before, unchanged = load(model, "onnx"), load(model, "onnx")
    assert unchanged.fingerprint == before.fingerprint
    write_model(tmp_path / "other", *parts(seed=1), {})
    for name in ("model.safetensors", "config.json"):
        (Path(model) / name).write_bytes((tmp_path / "other" / name).read_bytes())
    after, other = load(model, "onnx"), load(tmp_path / "other", "onnx")
    assert before.fingerprint != after.fingerprint == other.fingerprint
    np.testing.assert_array_equal(after.features(images), other.features(images))
    assert np.abs(after.features(images) - before.features(images)).max() > 0.01


def test_an_unwritable_cache_is_no_obstacle(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = load(model, "onnx").features(pictures(3))
    assert capsys.readouterr().err == ""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(load(model, "onnx").features(pictures(3)), kept)
    assert "is not kept for the next time" in capsys.readouterr().err


def test_a_graph_that_is_not_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of it, or Ctrl-C."""

    def stopped(folder: Path) -> Known:
        (folder / "tower.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        opened(None, 16, stopped, batch=1)
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_has_no_cache(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs as some number: no HOME, no entry in passwd."""
    kept = load(model, "onnx").features(pictures(3))

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    np.testing.assert_array_equal(load(model, "onnx").features(pictures(3)), kept)
    assert "no home directory" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from lookalike.vectors import engines, runtime
write = engines.write_graph
def dying(*arguments, **named):
    write(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
engines.write_graph = dying
runtime.load(sys.argv[1], "onnx")
"""


def test_what_a_killed_start_left_in_the_cache_goes(
    model: str, tmp_path: Path, parts: Callable, cache_home: Path
) -> None:
    write_model(tmp_path / "never again", *parts(seed=9), {})
    for path in (model, model, tmp_path / "never again"):
        command = [sys.executable, "-c", KILLED, str(path)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert len(list((cache_home / "lookalike").iterdir())) == 2  # the second start has cleared the first one's
    load(model, "onnx")
    (entry,) = (cache_home / "lookalike").iterdir()
    (entry / "known.json").unlink()  # half deleted
    load(model, "onnx")
    assert (entry / "known.json").exists()


def test_a_damaged_entry_of_the_cache_is_made_again(model: str, cache_home: Path) -> None:
    fingerprint = load(model, "onnx").fingerprint
    (entry,) = (cache_home / "lookalike").iterdir()
    for damage in ("", "[]", '{"fingerprint": "0"}'):
        (entry / "known.json").write_text(damage)
        (entry / "tower.onnx").write_bytes(b"")
        assert load(model, "onnx").embed([np.zeros((5, 5, 3), np.uint8)]).shape[0] == 1
        assert load(model, "onnx").fingerprint == fingerprint


def test_the_cache_stays_small(
    tmp_path: Path, parts: Callable, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        write_model(tmp_path / f"{seed}", *parts(seed=seed), {})
        load(tmp_path / f"{seed}", "onnx")
    sizes = [sum(f.stat().st_size for f in entry.iterdir()) for entry in (cache_home / "lookalike").iterdir()]
    assert len(sizes) == 3
    load(tmp_path / "0", "onnx")  # now 1 is the one that was used least recently
    monkeypatch.setattr("lookalike.vectors.engines.MOST_BYTES", int(2.5 * max(sizes)))
    write_model(tmp_path / "3", *parts(seed=3), {})
    load(tmp_path / "3", "onnx")
    from lookalike.vectors import engines

    assert [engines.find(tmp_path / name, int8=False) is not None for name in "0123"] == [True, False, True, True]


def test_prepares_in_order_and_a_little_ahead() -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[int]]:
        for i in range(0, 20, 4):
            taken.append(i)
            yield list(range(i, i + 4))

    stream = prepared(batches(), lambda i: np.full((2, 2, 3), i, np.uint8))
    first = next(stream)
    assert [int(image[0, 0, 0]) for image in first] == [0, 1, 2, 3]
    assert taken == [0, 4, 8]
    assert [int(b[0][0, 0, 0]) for b in stream] == [4, 8, 12, 16]


@pytest.mark.parametrize(
    ("platforms", "plugins", "devices", "expected"),
    [
        ("", [], {"/dev/nvidiactl"}, False),  # a GPU that JAX can't use
        ("", ["xla_cuda13"], set(), False),  # the plug-in on a machine without one
        ("", ["xla_cuda12"], {"/dev/nvidiactl"}, True),
        ("", ["xla_rocm7"], {"/dev/kfd"}, True),
        ("", ["libtpu"], {"/dev/accel0"}, True),
        ("", ["libtpu"], {"/dev/vfio/0"}, True),
        ("cpu", ["xla_cuda12"], {"/dev/nvidiactl"}, False),  # the user's wish
        ("tpu,cpu", [], set(), True),
    ],
)
def test_sees_accelerators_without_jax(platforms: str, plugins: list[str], devices: set[str], expected: bool) -> None:
    assert accelerated(platforms, plugins, devices.__contains__) is expected


@pytest.mark.data
@pytest.mark.reference("torch", "transformers")
def test_real_pictures_as_transformers_sees_them(data_path: Path, tmp_path: Path) -> None:
    """A published tower on real images, through the published code and through ours, from bytes to features."""
    import tarfile

    import torch
    import transformers

    from lookalike.published.layouts import read_published

    published = data_path / "backbones" / "mobilenet_v2_1.0_224"
    _, config, tensors = read_published(published)
    write_model(tmp_path / "real", config, tensors, {})
    with tarfile.open(data_path / "logos.tar") as tar:
        for number, member in zip(range(6), (m for m in tar if m.isfile()), strict=False):
            (tmp_path / f"{number}.jpg").write_bytes(tar.extractfile(member).read())
    paths = [tmp_path / f"{number}.jpg" for number in range(6)]
    tower = transformers.MobileNetV2Model.from_pretrained(published).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(published, backend="pil")
    with torch.inference_mode():
        seen = processor([PIL.Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
        expected = tower(**seen).pooler_output.numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = load(tmp_path / "real", "onnx").embed(paths)
    assert (found * expected).sum(axis=1).min() > 0.99999


def test_what_it_is_in_a_line(model: str) -> None:
    encoder = load(model)
    assert repr(encoder).startswith(f"Encoder({encoder.fingerprint[:8]}: {encoder.dimension} numbers of an image")
