"""What the user can mend, as sentences.

A message says what is wrong, where, what was found and what was expected. The hint is the command that
mends it. Commands catch `LookalikeError` alone and exit with code 2; anything else is a bug of ours and
keeps its traceback.

    LookalikeError
    ├── UsageError        the command line: unknown verb, option, recipe
    ├── SourceError       a source of images: missing column, unknown split, empty folder
    ├── ImageError        one image: not an image, truncated, too large
    ├── CollectionError   a collection: schema, missing column, made by another encoder
    ├── EncoderError      a model directory: missing tensor, wrong shape, pickles only
    ├── RunError          a training run: other config, other data, no checkpoint
    └── StorageError      the disk: full, not writable, in use by another writer, something else there
"""


class LookalikeError(Exception):
    """Something that the user can mend.

    `message` is one sentence or two; `hint` is a command or a short instruction, printed behind `hint: `. Without
    one of its own an error has the usual hint of its kind.
    """

    usual = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint)  # both in args, so that the error survives a trip between processes
        self.message = message
        self.hint = hint or self.usual

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[LookalikeError], message: str, hint: str) -> LookalikeError:
    return kind(message, hint=hint)


class UsageError(LookalikeError):
    """The command line can't be understood."""

    usual = "`lookalike VERB --help` lists what a verb takes"


class SourceError(LookalikeError):
    """A source of images can't be read as one."""

    usual = "`lookalike prepare --help` says what a source looks like"


class ImageError(LookalikeError):
    """One image can't be decoded; `message` becomes its row in the errors table."""

    usual = "open it in another program and save it as JPEG or PNG, or leave it out"


class CollectionError(LookalikeError):
    """A collection is missing, damaged, or lacks what was asked of it."""

    usual = "`lookalike info COLL` says what a collection holds"


class EncoderError(LookalikeError):
    """A model directory is missing, damaged or incomplete."""

    usual = "`lookalike pull DIR|ORG/NAME --out MODEL` makes a model directory of published weights"


class RunError(LookalikeError):
    """A run directory can't be continued as asked."""

    usual = "`lookalike train ... --out NEW` starts another run"


class StorageError(LookalikeError):
    """The disk refuses: full, not writable, locked, or occupied by something else."""

    usual = "mend or move away that file, then give the same command again"
