"""What a shell completes, asked of the shells that are here."""

import shlex
import shutil
import subprocess

import pytest

from lookalike.commands import COMMANDS, main
from lookalike.recipes import RECIPES


@pytest.fixture
def script(tmp_path, capsys):
    def write(shell):
        assert main(["completion", shell]) == 0
        file = tmp_path / shell
        file.write_text(capsys.readouterr().out)
        return file

    return write


def completed(file, *words):
    """What bash offers for the last of `words`."""
    line = " ".join(f"'{word}'" for word in words)
    given = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}"
    code = f"source {shlex.quote(str(file))}; {given}; _lookalike; printf '%s\\n' ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash(script):
    file = script("bash")
    assert completed(file, "lookalike", "") == [*COMMANDS, "help"]
    assert completed(file, "lookalike", "pre") == ["prepare"]
    assert completed(file, "lookalike", "train", "h") == [name for name in RECIPES if name.startswith("h")]
    assert completed(file, "lookalike", "train", "head", "--loss.m") == ["--loss.margin"]
    assert "--max-per-class" in completed(file, "lookalike", "prepare", "photos", "--max")
    assert completed(file, "lookalike", "prepare", "photos", "ph") == []  # files, by bash itself
    assert completed(file, "lookalike", "help", "se") == ["search"]
    assert completed(file, "lookalike", "search", "--nothing") == []


@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_the_others_can_read_it(script, shell, check):
    file = script(shell)
    text = file.read_text()
    assert all(verb in text for verb in COMMANDS)
    assert "max-per-class" in text
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, check, str(file)], check=True, capture_output=True)
