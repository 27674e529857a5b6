"""What the user can mend, as sentences: commands exit with code 2. Anything else is a bug and keeps its traceback."""


class LookalikeError(Exception):
    """What is wrong, where, what was found and expected, in a sentence or two; the hint is what mends it.

    Without a hint of its own an error has the usual one of its kind.

    >>> try:
    ...     la.Collection.open("nowhere")
    ... except la.Error as error:
    ...     print(error.message)
    There is nothing at `nowhere`, not a collection.
    """

    usual = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # both in args, so that the error survives a trip between processes
        self.message = message
        self.hint = hint or self.usual

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class UsageError(LookalikeError):
    """The command line: unknown verb, option, recipe."""

    usual = "`lookalike VERB --help` lists what a verb takes"


class SourceError(LookalikeError):
    """A source of images: missing column, unknown split, empty folder."""

    usual = "`lookalike prepare --help` says what a source looks like"


class ImageError(LookalikeError):
    """One image: not an image, truncated, too large; `message` becomes its row in the errors table."""

    usual = "open it in another program and save it as JPEG or PNG, or leave it out"


class CollectionError(LookalikeError):
    """A collection: schema, missing column, made by another encoder."""

    usual = "`lookalike info COLL` says what a collection holds"


class EncoderError(LookalikeError):
    """A model directory: missing tensor, wrong shape, pickles only."""

    usual = "`lookalike pull DIR|ORG/NAME --out MODEL` makes a model directory of published weights"


class RunError(LookalikeError):
    """A training run: other config, other data, no checkpoint."""

    usual = "`lookalike train ... --out NEW` starts another run"


class StorageError(LookalikeError):
    """The disk: full, not writable, in use by another writer, something else there."""

    usual = "mend or move away that file, then give the same command again"


class DeviceError(LookalikeError):
    """What computes: no such accelerator, held by another process, libraries that do not belong together."""

    usual = "`lookalike doctor` says what this machine has"
