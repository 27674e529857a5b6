"""A directory to the Hugging Face Hub: one commit, whole or not at all. `HF_TOKEN`, `HF_ENDPOINT`, as everywhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from likeness.core.errors import EncoderError


def upload(directory: Path, repository: str, replaced: Mapping[str, bytes], private: bool) -> str:
    """Make the repository if it is not there, and commit every file.

    Args:
        directory: What is uploaded, hidden files not.
        repository: ORG/NAME.
        replaced: Files that are uploaded with this content, whatever the directory has under their names.
        private: Whether a new repository can be seen by its owners alone; one that is there stays as it is.

    Returns:
        The address of the commit.

    Raises:
        EncoderError: No connection, no such organisation, or no right to write there.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    named: dict[str, bytes | Path] = {**{n: p for n, p in files.items() if not _hidden(n)}, **replaced}
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in named.items()]
    with _refusals(repository):
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message="Upload by likeness")
    return str(commit.commit_url)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


@contextmanager
def _refusals(repository: str) -> Iterator[None]:
    """Turn what the Hub and the connection refuse inside the block into one sentence each."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]

    token = "`hf auth login`, or set HF_TOKEN to a token that may write"
    try:
        yield
    except HFValidationError as error:
        raise EncoderError(f"`{repository}` is no name of a model on the Hub.", hint="it is ORG/NAME") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reasons = {
            401: ("the token is missing or wrong", token),
            403: ("the token may not write there", token),
            404: ("there is no such user or organisation, or it may not be seen", f"look at the name; {token}"),
        }
        reason, hint = reasons.get(status, ("it does not say why", "give the same command again later"))
        raise EncoderError(f"The Hub refuses to take `{repository}` ({status}): {reason}.", hint=hint) from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:  # the disk's
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(
            f"`{repository}` was not uploaded: there is no connection to the Hub ({first}).",
            hint="unset HF_HUB_OFFLINE where there is a connection, and give the same command again",
        ) from error
