"""The program as its user meets it: verbs, exit codes, where words and data go."""

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest

import lookalike
from lookalike import commands
from lookalike.commands import COMMANDS, main, run
from lookalike.commands.doctor import Config
from lookalike.core.errors import CollectionError

Verb = Callable[[Callable[[object], None]], None]


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Puts a function in the place of what `lookalike doctor` does."""

    def replace(action: Callable[[object], None]) -> None:
        module = SimpleNamespace(Config=Config, main=action)
        monkeypatch.setattr(commands, "import_module", lambda _: module)

    return replace


def test_help_lists_the_verbs_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-h", "--help"):
        assert main([flag]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for verb, line in COMMANDS.items():
            assert any(row.split(maxsplit=1) == [verb, line] for row in out.splitlines()), verb


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"lookalike {lookalike.__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["serch"], "error: Unknown verb `serch`. Did you mean `search`?\n\nhint: `lookalike --help` lists them\n"),
        (["qqq"], "error: Unknown verb `qqq`.\n\nhint: `lookalike --help` lists them\n"),
        (
            ["doctor", "--jsn"],
            "error: Unknown option `--jsn`. Did you mean `--json`?\n\n"
            "hint: `lookalike doctor --help` lists the options\n",
        ),
    ],
)
def test_what_the_user_can_mend_is_two(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr() == ("", words)


def test_errors_of_ours_are_sentences(doctor: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> None:
        raise CollectionError("`x` is no collection.", hint="lookalike prepare SOURCE --out x")

    doctor(fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "error: `x` is no collection.\n\nhint: lookalike prepare SOURCE --out x\n"


def test_bugs_keep_their_traceback(doctor: Verb) -> None:
    doctor(lambda _: [][1])
    with pytest.raises(IndexError):
        main(["doctor"])


def test_an_interrupt_says_how_to_go_on(doctor: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    doctor(interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_an_interrupt_that_a_lock_complains_of_is_one(doctor: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        lock = threading.Lock()
        with lock:
            lock.release()  # as if the signal had come between the lock's own release and its end
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    doctor(interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_not_lost_in_the_garbage_collector(
    doctor: Verb, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """Python prints what a callback raises, and goes on."""

    def interrupted(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            gc.callbacks.remove(interrupted)
            os.kill(os.getpid(), number)
            for _ in range(1000):  # here Python looks for signals
                pass

    def work(_: object) -> None:
        gc.callbacks.append(interrupted)
        gc.collect()
        signal.sigtimedwait([], 5)
        pytest.fail("went on")

    doctor(work)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_what_may_not_be_read_is_two(doctor: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    def read(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "model/config.json")

    doctor(read)
    assert main(["doctor"]) == 2
    words = "error: `model/config.json` can't be opened: permission is denied.\n\nhint: "
    assert capsys.readouterr().err.startswith(words)


def test_a_name_that_no_file_can_have_is_two(doctor: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    doctor(lambda _: Path("y" * 300).is_dir())
    assert main(["doctor"]) == 2
    assert "y` is too long for the name of a file.\n\nhint: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "head", "--data", "none.coll", "--model", "none", "--out", "run", "--json"],
        ["evaluate", "none", "none.coll", "--json"],
        ["evaluate", "none", "none.coll", "--worst"],
        ["compare", "none", "none2", "--data", "none.coll", "--html"],
        ["judge", "none", "--from", "none", "--json"],
        ["map", "none.coll", "--html"],
        ["search", "none.jpg", "--index", "none.coll", "--sheet"],
        ["info", "none.coll", "--page"],
        *([verb, "none.coll", "--json"] for verb in ("clusters", "duplicates", "outliers", "split")),
    ],
)
def test_what_can_not_be_written_is_told_before_the_work(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that these name is there either, which is found out later."""
    (tmp_path / "note.txt").touch()
    for place, words in ((tmp_path, "is a directory"), (tmp_path / "note.txt" / "sub" / "x.png", "is a file")):
        assert main([*argv, str(place)]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 100_000])  # fails in the last flush; inside the command
def test_a_full_disk_behind_stdout_is_two(count: int) -> None:
    code = PIPED.format(action=f"lambda _: print('x' * {count})")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Writing to stdout failed: the disk is full.\n\nhint: ")
    assert "Traceback" not in done.stderr


def test_sigterm_is_an_interrupt_and_its_handler_is_put_back(doctor: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work(_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    doctor(work)
    assert main(["doctor"]) == 130
    assert cleaned == [True]
    assert capsys.readouterr().err == "\ninterrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_may_call_main(doctor: Verb) -> None:
    from concurrent.futures import ThreadPoolExecutor

    doctor(lambda _: None)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["doctor"]).result() == 0


def test_run_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lookalike", "--version"])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 0


LANCE = """
from lookalike import commands
commands.main = lambda argv: __import__("lance") and 0
commands.run()
"""


@pytest.mark.parametrize(("verb", "words"), [("search", ""), ("index", ""), ("export", "pandas is imported")])
def test_pandas_is_not_waited_for(tmp_path: Path, verb: str, words: str) -> None:
    (tmp_path / "pandas.py").write_text("raise SystemExit('pandas is imported')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    code = [sys.executable, "-c", LANCE, verb]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr.strip()) == (1 if words else 0, words)


PIPED = """
import sys
from types import SimpleNamespace
from lookalike import commands
from lookalike.commands import doctor
commands.import_module = lambda _: SimpleNamespace(Config=doctor.Config, main={action})
sys.exit(commands.main(["doctor"]))
"""


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("lambda _: [print('x' * 100) for _ in range(10000)]", 0, ""),  # fails inside the command
        ("lambda _: print('x')", 0, ""),  # fails in the last flush
        ("lambda _: (_ for _ in ()).throw(BrokenPipeError())", 1, "BrokenPipeError"),  # somebody else's pipe
    ],
)
def test_a_reader_that_leaves_is_no_error(action: str, code: int, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if code:
        os.close(writing)
        writing = os.open(os.devnull, os.O_WRONLY)
    process = subprocess.run(
        [sys.executable, "-c", PIPED.format(action=action)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert process.returncode == code
    assert process.stderr.strip().split("\n")[-1] == words


def test_a_terminal_without_the_letters_gets_backslashes_and_no_command() -> None:
    code = PIPED.replace("commands.main", "commands.run() or commands.main").format(
        action="lambda _: [print('\\U0001f98a'), note('`\\x1b[2J`')]"
    )
    code = "from lookalike.core.journal import note\n" + code
    code = code.replace("commands.import_module", "sys.argv = ['lookalike', 'doctor']\ncommands.import_module")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\U0001f98a\n", b"`\\x1b[2J`\n")


PAGES = """
import os, sys
from lookalike import commands
block = lambda: bytearray(1 << 28)
huge = lambda: sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHuge"))
commands.main = lambda argv: print(os.environ.get("GLIBC_TUNABLES"), argv, (block(), huge() > 0)[1]) or 0
commands.run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="tunables are glibc's")
@pytest.mark.parametrize(
    ("argv", "given", "expected"),
    [
        (["train", "head", "--data", "a b"], None, "glibc.malloc.hugetlb=1"),
        (["search", "x"], None, "None"),
        (["train", "head"], "glibc.malloc.check=0", "glibc.malloc.check=0"),
    ],
)
def test_training_has_large_pages(argv, given, expected) -> None:
    """Memory lies in pages of 2 MiB, if the machine gives such; what somebody has set stays."""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"GLIBC_TUNABLES": given} if given else {}
    code = [sys.executable, "-c", PAGES, *argv]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=True)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    asked = (
        setting.exists() and "[madvise]" in setting.read_text() and os.confstr("CS_GNU_LIBC_VERSION") >= "glibc 2.35"
    )
    assert done.stdout.startswith(f"{expected} {argv} ")
    if asked:
        assert done.stdout.split()[-1] == str(expected == "glibc.malloc.hugetlb=1")


def test_an_interpreter_that_can_not_be_started_again_trains_without_large_pages(monkeypatch, capsys) -> None:
    """One of another user's folder, where the first start was allowed and a second is not."""

    tried = []

    def refuse(*arguments):
        tried.append(arguments)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execv", refuse)
    monkeypatch.setattr(sys, "argv", ["lookalike", "train"])
    commands._in_large_pages()
    assert len(tried) == 1
    monkeypatch.setattr(sys, "argv", ["lookalike", "search"])
    commands._in_large_pages()
    assert len(tried) == 1  # which begins once anyhow


def test_help_and_version_by_every_name(capsys):
    assert commands.main([]) == 0
    whole = capsys.readouterr().out
    for argv in (["help"], ["-h"], ["--help"]):
        assert commands.main(argv) == 0
        assert capsys.readouterr().out == whole
    assert commands.main(["help", "info"]) == 0
    told = capsys.readouterr().out
    assert commands.main(["info", "--help"]) == 0
    assert capsys.readouterr().out == told
    assert commands.main(["-V"]) == 0
    assert capsys.readouterr().out == f"lookalike {lookalike.__version__}\n"


def test_quiet_says_errors_alone_and_verbose_says_more(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    PIL.Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "a.png")
    prepare = ["prepare", str(tmp_path / "photos"), "--out"]
    assert commands.main([*prepare, str(tmp_path / "a"), "-q"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.startswith("domain")
    assert commands.main(["-v", *prepare, str(tmp_path / "b")]) == 0
    assert "took 0." in capsys.readouterr().err
    wrong = ["info", str(tmp_path / "absent")]
    assert commands.main(["-q", *wrong]) == 2
    usual = capsys.readouterr().err
    assert usual.startswith("error: ")
    assert commands.main([*wrong, "--verbose"]) == 2
    more = capsys.readouterr().err
    assert more.startswith("Traceback")
    assert usual in more


def test_errors_are_coloured_where_it_is_wanted(capsys, monkeypatch):
    for forced, forbidden, expected in (
        ("1", "", "\x1b[31;1merror:\x1b[0m Unk"),
        ("1", "1", "error: Unk"),
        ("", "", "error: Unk"),
    ):
        monkeypatch.setenv("FORCE_COLOR", forced)
        monkeypatch.setenv("NO_COLOR", forbidden)
        assert commands.main(["serch"]) == 2
        assert capsys.readouterr().err.startswith(expected)
