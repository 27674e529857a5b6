"""What importing costs: no JAX where a command should start at once, no extra where the base must do, no effects."""

import ast
import os
import pkgutil
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

import lookalike

# A file in another library's words (PyTorch compiles classes as they stand in one), imported by its target alone.
FOREIGN = {
    "lookalike.estimator": "sklearn",
    "lookalike.targets.torch_program": "torch",
    "lookalike.torch_dataset": "torch",
}

MODULES = sorted({m.name for m in pkgutil.walk_packages(lookalike.__path__, "lookalike.")} - FOREIGN.keys())

# Rooms and modules that hold JAX code; everything else must import without it.
JAX = (
    "lookalike.core.mesh",
    "lookalike.encoders.encoder",
    "lookalike.towers.programs.convolution",
    "lookalike.towers.programs.halves",
    "lookalike.towers.programs.jax",
    "lookalike.towers.programs.products",
    "lookalike.training",
)
HELP = "lookalike.training.config"  # what the help of a recipe needs: losses are their own config, and wait for JAX
LIGHT = [m for m in MODULES if m == HELP or not any(m == heavy or m.startswith(heavy + ".") for heavy in JAX)]

EXTRAS = (
    "openvino",
    "tensorflow",
    "faiss",
    "torch",
    "transformers",
    "sklearn",
    "pacmap",
    "pytest",
    "beartype",
    "hypothesis",
    "tokenizers",
    "pillow_heif",
    "pillow_jxl",
    "rawpy",
)

CHECK = """
import os, sys, threading
modules, banned, blocked = {modules!r}, {banned!r}, {blocked!r}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
before = dict(os.environ)
for module in modules:
    __import__(module)
    found = [name for name in banned if name in sys.modules]
    assert not found, f"{{module}} imports {{found}}"
    assert threading.active_count() == 1, f"{{module}} starts a thread"
    assert dict(os.environ) == before, f"{{module}} changes the environment"
assert not os.listdir("."), f"files written at import: {{os.listdir('.')}}"
"""


def check(
    folder: Path, modules: list[str], banned: tuple[str, ...] = (), blocked: tuple[str, ...] = (), before: str = ""
) -> str:
    """The errors of a fresh process that imports `modules` in an empty folder; "" if there are none."""
    code = before + CHECK.format(modules=modules, banned=banned, blocked=blocked)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))} | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stderr


def test_light_modules_import_no_jax(tmp_path: Path) -> None:
    assert check(tmp_path, LIGHT, banned=("jax", "tyro")) == ""


def test_readers_wait_for_what_few_images_need(tmp_path: Path) -> None:
    few = ("PIL.ImageCms", "PIL.TiffImagePlugin", "PIL.ImageChops")
    assert check(tmp_path, ["lookalike.imaging.decode", "lookalike.vectors.runtime"], banned=few) == ""
    assert "imports ['PIL.ImageCms']" in check(tmp_path, ["PIL.ImageCms"], banned=few[:1])


def test_the_check_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "elsewhere"
    bad.mkdir()
    (bad / "threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1,), daemon=True).start()"
    )
    (bad / "environ.py").write_text("import os\nos.environ['X'] = '1'")
    (bad / "files.py").write_text("open('x', 'w').close()")
    empty = tmp_path / "empty"
    empty.mkdir()
    at = f"__import__('sys').path.insert(0, {str(bad)!r})\n"
    assert "starts a thread" in check(empty, ["threads"], before=at)
    assert "changes the environment" in check(empty, ["environ"], before=at)
    assert "files written at import" in check(empty, ["files"], before=at)
    assert "imports ['jax']" in check(tmp_path, ["jax"], banned=("jax",))
    assert "No module named 'numpy'" in check(tmp_path, ["lookalike.core.shapes"], blocked=("numpy",))


def test_every_module_imports_with_the_base_alone(tmp_path: Path) -> None:
    assert check(tmp_path, MODULES, blocked=EXTRAS) == ""
    for module, library in FOREIGN.items():
        assert f"No module named '{library}'" in check(tmp_path, [module], blocked=EXTRAS)


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    heavy = ("numpy", "pyarrow", "lance", "tyro", "jax", "PIL", "dataclasses", "jaxtyping", "multiprocessing")
    assert check(tmp_path, ["lookalike", "lookalike.commands"], banned=heavy) == ""


def test_plain_arguments_need_no_library(tmp_path: Path) -> None:
    search = "import lookalike.commands.search as s; from lookalike.core.config import parse\n"
    search += "assert parse(s.Config, ['a.jpg', '-k', '3', '--json'], prog='', description='').k == 3\n"
    assert check(tmp_path, ["lookalike.core.config"], banned=("tyro", "typeguard"), before=search) == ""


def test_help_of_a_recipe_imports_no_jax(tmp_path: Path) -> None:
    asked = "from lookalike.commands import main; main(['train', 'head', '--help'])\n"
    assert check(tmp_path, ["lookalike.recipes"], banned=("jax",), before=asked) == ""


def test_help_is_quick(tmp_path: Path) -> None:
    """A ratio, since machines differ: 5 times Python's own start is 0.15 s where that takes 0.03 s; measured: 2."""
    bare = [sys.executable, "-c", "pass"]
    asked = [sys.executable, "-c", "from lookalike.commands import run; run()", "--help"]
    ratios = []
    for _ in range(7):
        times = []
        for command in (bare, asked):
            begun = time.perf_counter()
            subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begun)
        ratios.append(times[1] / times[0])
    assert statistics.median(ratios) < 5, ratios


def test_all_lists_are_sorted_and_true() -> None:
    root = Path(lookalike.__file__).parent
    for file in sorted(root.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and node.targets[0].id == "__all__"
            ):
                listed = ast.literal_eval(node.value)
                assert listed == sorted(listed), file
                name = ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
                assert [n for n in listed if not hasattr(import_module(name), n)] == [], file


def test_public_names_are_complete_sorted_and_found() -> None:
    assert lookalike.__all__ == sorted(lookalike.__all__)
    assert set(lookalike.__all__) == {*lookalike._PLACES, "__version__"}
    for name in lookalike.__all__:
        assert getattr(lookalike, name) is not None
    assert dir(lookalike) == lookalike.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lookalike.nothing  # noqa: B018


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse(Path(lookalike.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == lookalike._PLACES
