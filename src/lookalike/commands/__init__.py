"""The verbs: each is one file of this room, found here by name and imported only when it is called.

A command's module has a frozen dataclass `Config`, whose fields are its options, and `main(config)`. A module
whose options depend on the arguments (train: on the recipe) has `configure(argv) -> Config` too.
"""

import errno
import io
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

from lookalike.core.errors import LookalikeError, UsageError
from lookalike.core.journal import note

__all__ = ["COMMANDS", "dispatch", "main", "run"]

COMMANDS: dict[str, tuple[str, str]] = {
    "prepare": ("lookalike.commands.prepare", "turn folders and tables of images into a collection"),
    "pull": ("lookalike.commands.pull", "turn published weights into a model directory"),
    "train": ("lookalike.commands.train", "make an encoder from a collection, following a recipe"),
    "embed": ("lookalike.commands.embed", "write a model's vectors into a collection"),
    "evaluate": ("lookalike.commands.evaluate", "say how good a model's vectors are on a collection"),
    "index": ("lookalike.commands.index", "from a folder to a searchable collection in one step"),
    "search": ("lookalike.commands.search", "find the nearest images of a collection"),
    "export": ("lookalike.commands.export", "take an encoder to another library or runtime"),
    "push": ("lookalike.commands.push", "upload a model to the Hugging Face Hub, with its card"),
    "info": ("lookalike.commands.info", "say what a directory of ours holds"),
    "doctor": ("lookalike.commands.doctor", "say what this machine has and what is missing"),
    "demo": ("lookalike.commands.demo", "draw made-up products and show all of this on them, offline"),
}
"""verb -> (module, one line of help)."""

_GO_ON = ("prepare", "pull", "train", "embed", "evaluate", "index", "demo")
"""Verbs that keep what they have done when they are interrupted."""


def run() -> None:
    """The console script: `main` over the process's own arguments."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is written with backslashes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Do what `argv` says and return the exit code.

    0 done; 2 for what the user can mend, said in one sentence and a hint; 130 interrupted. A bug of ours keeps
    its traceback, which ends the process with 1.
    """
    told: list[int] = []
    try:
        with _interruptible(told):
            dispatch(argv)
            sys.stdout.flush()
        return 0
    except LookalikeError as error:
        note(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return _interrupted(argv)
    except SystemExit as end:  # the help was printed
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 0
    except OSError as error:  # rooms tell what they write; this is what they read, and stdout
        if error.errno not in _MENDABLE:
            raise
        if error.errno == errno.ENOSPC:
            _drop_stdout()
        note(f"error: {_MENDABLE[error.errno].format(error.filename)}")
        return 2
    except Exception:
        if not told:
            raise
        return _interrupted(argv)  # a lock that was left by an interrupt complains, or an import that it broke off


_MENDABLE = {
    errno.EACCES: "`{}` can't be opened: permission is denied.\n\nhint: `ls -ld` says who may read it",
    errno.ENOSPC: "Writing to stdout failed: the disk is full.\n\nhint: make room, and give the same command again",
}


def _interrupted(argv: list[str]) -> int:
    more = "; the same command goes on where it stopped" if argv[0] in _GO_ON else ""
    print(f"\ninterrupted{more}", file=sys.stderr)
    return 130


def dispatch(argv: list[str]) -> None:
    """Do what `argv` says; errors pass through. What `main` does without exit codes and signals."""
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb in ("-h", "--help"):
        print(_help())
    elif verb == "--version":
        import lookalike

        print(f"lookalike {lookalike.__version__}")
    elif verb in COMMANDS:
        _command(verb, rest)
    elif not verb:
        raise UsageError("A verb is missing.", hint="`lookalike --help` lists them")
    else:
        from lookalike.core.config import did_you_mean

        raise UsageError(f"Unknown verb `{verb}`.{did_you_mean(verb, COMMANDS)}", hint="`lookalike --help` lists them")


def _command(verb: str, argv: list[str]) -> None:
    module = import_module(COMMANDS[verb][0])
    if hasattr(module, "configure"):
        config = module.configure(argv)
    else:
        from inspect import cleandoc

        from lookalike.core.config import parse

        words = cleandoc(module.Config.__doc__ or "")
        config = parse(module.Config, argv, prog=f"lookalike {verb}", description=words)
    module.main(config)


def _help() -> str:
    verbs = "\n".join(f"  {verb:<9} {line}" for verb, (_, line) in COMMANDS.items())
    return (
        "usage: lookalike VERB [options]\n\n"
        "Turns an image of anything into 64 numbers, so that images of the same thing lie next to each other.\n\n"
        f"{verbs}\n\n"
        "`lookalike VERB --help` lists a verb's options; `lookalike --version` says which version this is.\n"
        "Data goes to stdout, words to stderr. Exit codes: 0 done, 2 something you can mend, 1 a bug, 130 interrupted."
    )


@contextmanager
def _interruptible(told: list[int]) -> Iterator[None]:
    """SIGTERM inside the block ends it like Ctrl-C, so that what cleans up after one cleans up after the other.

    Neither is lost where Python has no one to raise it to (a callback of the garbage collector): it comes again.

    Args:
        told: Is given the number of each signal.
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
    """Whether stdout is the pipe that broke (`| head`); then nothing more is written to it."""
    import select

    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    _drop_stdout()
    return True


def _drop_stdout() -> None:
    """What is still in the buffer of stdout goes nowhere; else Python tries again at exit, and ends with 120."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
