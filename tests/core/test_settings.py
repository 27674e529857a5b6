import os

import PIL.Image
import pytest

from lookalike.commands import main
from lookalike.core.errors import UsageError
from lookalike.core.settings import flag, settings

TOML = """
model = "models/shop"
[search]
k = 10
json = true
where = "domain = 'cars'"
[prepare]
exclude = ["thumbs", "*.png"]
[train]
dimension = 32
[train.head]
epochs = 5
loss.margin = 0.2
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "lookalike.toml").write_text(TOML)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos" / "deep")
    return tmp_path


def test_the_nearest_file_above_counts(project):
    found = settings()
    assert found.file == project / "lookalike.toml"
    assert found.flags("search", []) == ["--k", "10", "--json", "--where", "domain = 'cars'"]
    assert found.flags("prepare", ["photos"]) == ["--exclude", "thumbs", "*.png"]
    assert found.flags("info", []) == []
    nearer = project / "photos" / "pyproject.toml"
    nearer.write_text("[tool.other]\nx = 1\n")
    assert settings().file == project / "lookalike.toml"
    nearer.write_text("[tool.lookalike.search]\nk = 3\n")
    assert settings().flags("search", []) == ["--k", "3"]


def test_a_recipe_has_its_own_and_the_command_line_counts_before(project):
    found = settings()
    assert found.flags("train", ["pca"]) == ["--dimension", "32"]
    assert found.flags("train", ["head", "--epochs=2", "--dimension", "8"]) == ["--loss.margin", "0.2"]
    assert found.flags("search", ["-k", "3", "--no-json"]) == ["--where", "domain = 'cars'"]


@pytest.mark.parametrize("given", [["-i", "asked"], ["-iasked"], ["--index", "asked"]])
def test_a_letter_on_the_command_line_counts_before(project, capsys, given):
    (project / "lookalike.toml").write_text('[search]\nindex = "told"\n')
    PIL.Image.new("RGB", (8, 8)).save("cup.jpg")
    assert main(["search", "cup.jpg", *given]) == 2
    words = capsys.readouterr().err
    assert "`asked`" in words
    assert "told" not in words
    assert main(["search", "cup.jpg"]) == 2
    assert "`told`" in capsys.readouterr().err


def test_model_and_index_are_relative_to_the_file_and_the_environment_counts_before(project, monkeypatch):
    monkeypatch.delenv("LOOKALIKE_MODEL", raising=False)
    with settings().exported():
        assert os.environ["LOOKALIKE_MODEL"] == str(project / "models/shop")
    assert "LOOKALIKE_MODEL" not in os.environ
    monkeypatch.setenv("LOOKALIKE_MODEL", "other")
    with settings().exported():
        assert os.environ["LOOKALIKE_MODEL"] == "other"
    assert os.environ["LOOKALIKE_MODEL"] == "other"


def test_what_is_wrong_in_it_is_said(project, capsys):
    (project / "lookalike.toml").write_text("[doctor]\nnothing = 1\n")
    assert main(["doctor"]) == 2
    words = capsys.readouterr().err
    assert "Unknown option `--nothing`" in words
    assert f"hint: it stands in `{project}/lookalike.toml`" in words
    (project / "lookalike.toml").write_text("[doctor\n")
    with pytest.raises(UsageError, match="is no TOML"):
        settings()
    assert main(["doctor"]) == 2
    assert "is no TOML" in capsys.readouterr().err
    assert main(["--help"]) == 0


def test_flags_by_their_names_in_python():
    assert flag("loss.batch_norm", False) == ["--loss.no-batch-norm"]
    assert flag("mirror", True) == ["--mirror"]
    assert flag("zooms", ()) == ["--zooms"]
    assert flag("max_per_class", 3) == ["--max-per-class", "3"]
