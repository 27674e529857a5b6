"""A directory to the Hugging Face Hub: one commit, whole or not at all. `HF_TOKEN`, `HF_ENDPOINT`, as everywhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lookalike.core.errors import EncoderError


def check_name(repository: str) -> None:
    """EncoderError if `repository` is no ORG/NAME that the Hub takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise HFValidationError
    except HFValidationError as error:
        raise EncoderError(f"`{repository}` is no name of a model on the Hub.", hint="it is ORG/NAME") from error


def upload(files: Mapping[str, Path | bytes], repository: str, private: bool) -> str:
    """Make the repository if it is not there (if it is, it stays as `private` as it is); the address of the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    with _refusals(repository):
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message="Upload by lookalike")
    return str(commit.commit_url)


@contextmanager
def _refusals(repository: str) -> Iterator[None]:
    """Turn what the Hub and the connection refuse inside the block into one sentence each."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    token = "`hf auth login`, or set HF_TOKEN to a token that may write"
    reasons = {
        401: ("the token is missing or wrong", token),
        403: ("the token may not write there", token),
        404: ("there is no such user or organisation, or it may not be seen", f"look at the name; {token}"),
    }
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason, hint = reasons.get(status, ("it does not say why", "give the same command again later"))
        raise EncoderError(f"The Hub refuses to take `{repository}` ({status}): {reason}.", hint=hint) from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:  # the disk's
            raise
        first = (str(error) or type(error).__name__).splitlines()[0]
        hint = f"look whether `{constants.ENDPOINT}` answers (HF_ENDPOINT sets another address)"
        hint = "unset HF_HUB_OFFLINE where there is a connection" if constants.HF_HUB_OFFLINE else hint
        raise EncoderError(
            f"`{repository}` was not uploaded: there is no connection to the Hub ({first}).",
            hint=f"{hint}, and give the same command again",
        ) from error
