"""The verbs: each is one file of this room, found here by name and imported only when it is called.

A command's module has a frozen dataclass `Config`, whose fields are its options, and `main(config)`. A module
whose options depend on the arguments (train: on the recipe) has `configure(argv) -> Config` instead.
"""

import errno
import gc
import io
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType, ModuleType

from lookalike import __version__
from lookalike.core.errors import LookalikeError, UsageError

COMMANDS = {
    "prepare": "turn folders and tables of images into a collection",
    "pull": "turn published weights into a model directory",
    "train": "make an encoder from a collection, following a recipe",
    "blend": "average the weights of models that came from one",
    "plan": "try a recipe on a TPU before you have it, or on this machine",
    "embed": "write a model's vectors into a collection",
    "evaluate": "say how good a model's vectors are on a collection",
    "compare": "say which of several models is better, and how sure that is",
    "judge": "measure a model as the Universal Image Embedding challenge did",
    "index": "from a folder to a searchable collection in one step",
    "prune": "let go of what is gone, and of old vectors, with their bytes",
    "search": "find the nearest images of a collection",
    "duplicates": "group images that are the same or nearly so",
    "outliers": "find labels that don't fit, and images that fit no label",
    "clusters": "group images that lie together, and name the groups",
    "map": "draw all images on one page that pans and zooms",
    "split": "keep images back to measure on, so that nothing leaks",
    "export": "take an encoder to another library or runtime",
    "push": "upload a model to the Hugging Face Hub, with its card",
    "info": "say what a directory of ours holds",
    "doctor": "say what this machine has and what is missing",
    "completion": "let the Tab key of a shell complete all of this",
    "demo": "draw made-up products and show all of this on them, offline",
}
"""verb -> one line of help; each is a module of this room."""

_GO_ON = (
    "prepare",
    "pull",
    "train",
    "embed",
    "evaluate",
    "judge",
    "index",
    "prune",
    "demo",
)  # keep what they did when interrupted

_TRAINING = {"train", "plan", "demo"}

_MENDABLE = {
    errno.EACCES: "`{}` can't be opened: permission is denied.\n\nhint: `ls -ld` says who may read it",
    errno.ENAMETOOLONG: "`{}` is too long for the name of a file.\n\nhint: each part of a path has at most 255 bytes",
    errno.ENOSPC: "Writing to stdout failed: the disk is full.\n\nhint: make room, and give the same command again",
}

_HELP = """usage: lookalike VERB [options]

Turns an image of anything into 64 numbers, so that images of the same thing lie next to each other.

{verbs}

`lookalike VERB --help` lists a verb's options; `lookalike -V` says which version this is.
-q, --quiet: say nothing but errors. -v, --verbose: say where an error comes from, and what a verb took.
lookalike.toml sets defaults: docs/how-to/defaults.md. NO_COLOR and FORCE_COLOR are heeded.
Data goes to stdout, words to stderr. Exit codes: 0 done, 2 something you can mend, 1 a bug, 130 interrupted."""


def run() -> None:
    """The console script: `main` over the process's own arguments."""
    _in_large_pages()
    gc.set_threshold(200_000, 20, 20)  # what imports make is no garbage
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is written with backslashes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "export" not in sys.argv[1:2]:  # whose libraries may want it
        sys.meta_path.insert(0, _WithoutPandas())
    code = main(sys.argv[1:])
    gc.freeze()  # looking for garbage among all modules at exit was a sixth of a cold search
    sys.exit(code)


class _WithoutPandas:
    """As if pandas were not installed, for which our verbs have no use.

    Where it is, pyarrow imports it at the first value that it meets, to ask whether that is one of pandas', and
    `import lance` brings the first. That takes half as long as a cold search, and no setting is against it.
    """

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _in_large_pages() -> None:
    """Where Linux and glibc have them: begin a verb that trains again, its memory in pages of 2 MiB.

    A step on a CPU takes gigabytes and leaves them again, and in pages of 4 KiB that is a third of a MobileNetV2's
    time. The C library reads this once, when a process starts.
    """
    if sys.platform == "linux" and _TRAINING.intersection(sys.argv[1:2]) and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        with suppress(OSError):  # an interpreter that may be run and not be found, as another user's: then without
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(argv: list[str]) -> int:
    """Do what `argv` says and return the exit code; a bug of ours keeps its traceback, which makes it 1."""
    told: list[int] = []
    argv, loudness = _loudness(argv)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # the others keep 40 MB more of a million rows
    try:
        with _interruptible(told), _said(loudness):
            dispatch(argv)
            sys.stdout.flush()
        return 0
    except SystemExit as end:  # the help was printed
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        _drop_stdout()
        return 0
    except OSError as error:  # rooms tell what they write; this is what they read, and stdout
        if error.errno not in _MENDABLE:
            raise
        if error.errno == errno.ENOSPC:
            _drop_stdout()
        return _told(_MENDABLE[error.errno].format(error.filename))
    except LookalikeError as error:
        if loudness > 0:
            import traceback

            traceback.print_exc()
        return _told(str(error).replace("`lookalike VERB --help`", f"`lookalike {argv[0]} --help`"))
    except (KeyboardInterrupt, Exception) as error:
        if not told and not isinstance(error, KeyboardInterrupt):
            raise  # else a lock that was left by an interrupt complains, or an import that it broke off
        more = "; the same command goes on where it stopped" if argv[0] in _GO_ON else ""
        print(f"\ninterrupted{more}", file=sys.stderr)
        return 130


def _told(error: str) -> int:
    from lookalike.core.journal import colored, note  # not above: `--help` does without

    note(f"error: {error}", mark=colored("error:", "31;1"))
    return 2


def dispatch(argv: list[str]) -> None:
    """What `main` does, without exit codes and signals; errors pass through."""
    verb, *rest = argv or ["--help"]
    if verb == "help":
        verb, rest = (rest[0], ["--help"]) if rest else ("--help", [])
    if verb in ("-h", "--help"):
        print(_HELP.format(verbs="\n".join(f"  {verb:<10} {line}" for verb, line in COMMANDS.items())))
        return
    if verb in ("-V", "--version"):
        print(f"lookalike {__version__}")
        return
    from inspect import getdoc

    from lookalike.core.config import did_you_mean, files_to_write, letters_of, parse
    from lookalike.core.files import refuse_unwritable
    from lookalike.core.journal import said_at_first
    from lookalike.core.settings import settings

    if verb not in COMMANDS:
        raise UsageError(f"Unknown verb `{verb}`.{did_you_mean(verb, COMMANDS)}", hint="`lookalike --help` lists them")
    module = import_module(f"lookalike.commands.{verb}")
    told = settings()
    added = told.flags(verb, rest, letters_of(module.Config) if hasattr(module, "Config") else {})
    try:
        if hasattr(module, "configure"):
            config = module.configure([*rest, *added])
        else:
            description = getdoc(module.Config) or ""
            config = parse(module.Config, [*rest, *added], prog=f"lookalike {verb}", description=description)
    except UsageError as error:
        if any(f"`{word}`" in error.message for word in added):
            error.hint = f"it stands in `{told.file}`; {error.hint}"
        raise
    for file in files_to_write(config):  # now, not behind an hour of work
        refuse_unwritable(file)
    with told.exported(), said_at_first(f"{verb}: importing libraries, and opening what is given"):
        module.main(config)


def _loudness(argv: list[str]) -> tuple[list[str], int]:
    """`argv` without -q and -v, and how much is said: -1 errors alone, 0 what is usual, 1 more."""
    wanted = {"-q": -1, "--quiet": -1, "-v": 1, "--verbose": 1}
    return [word for word in argv if word not in wanted], max(
        (wanted[word] for word in argv if word in wanted), default=0
    )


@contextmanager
def _said(loudness: int) -> Iterator[None]:
    """Inside the block words for the person at the terminal are said, or not; behind it, what it took."""
    begun = time.monotonic()
    if loudness >= 0:
        yield
    else:
        from lookalike.core import journal

        with journal.quiet():
            yield
    if loudness > 0:
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(f"took {time.monotonic() - begun:.1f} s and at most {peak / 1024:,.0f} MB a process", file=sys.stderr)


@contextmanager
def _interruptible(told: list[int]) -> Iterator[None]:
    """SIGTERM inside the block ends it like Ctrl-C, so that what cleans up after one cleans up after the other.

    Neither is lost where Python has no one to raise it to (a callback of the garbage collector): it comes again.
    `told` is given the number of each signal.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        raise KeyboardInterrupt

    def lost(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # not at once: it would be raised in here, and lost again
        else:
            hook(unraisable)

    if threading.current_thread() is not threading.main_thread():  # elsewhere signals are the caller's
        yield
        return
    numbers = [signal.SIGTERM, signal.SIGALRM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell or a caller has its own idea
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _reader_is_gone() -> bool:
    """Whether stdout is the pipe that broke (`| head`)."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_stdout() -> None:
    """What is still in the buffer of stdout goes nowhere; else Python tries again at exit, and ends with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
