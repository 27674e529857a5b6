"""Published models from the Hugging Face Hub: only safetensors and JSON are fetched, and nothing there is ever run."""

from pathlib import Path

from likeness.core.errors import EncoderError

_CONFIGS = [
    "config.json",
    "card.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
]
# A repository often holds the same weights in several layouts: the first that is there is enough.
_WEIGHTS = [
    ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"],
    ["open_clip_model.safetensors"],
]


def download(repository: str) -> Path:
    """The configs and the weights of `ORG/NAME`, in the Hub's own cache (`HF_HOME`).

    Raises:
        EncoderError: It can't be had: no connection, no such model, or a licence to accept first.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]

    path = Path()
    try:
        snapshot_download(repository, allow_patterns=_CONFIGS)
        for patterns in _WEIGHTS:
            path = Path(snapshot_download(repository, allow_patterns=patterns))
            if any(path.glob("*.safetensors")):
                return path
    except HfHubHTTPError as error:
        raise _failed(repository, f"the Hub says {str(error).splitlines()[0]}") from error
    except HFValidationError as error:
        raise _failed(repository, "that is no name of a model on the Hub") from error
    except (OSError, HTTPError) as error:  # no connection, or nothing in the cache while offline
        raise _failed(repository, "there is no connection to the Hub") from error
    return path


def _failed(repository: str, reason: str) -> EncoderError:
    return EncoderError(
        f"Getting `config.json` and `model.safetensors` of `{repository}` failed: {reason}.",
        hint=f"where there is a connection, `hf download {repository} --local-dir DIR --include '*.json' "
        "'*.safetensors'`; then `likeness pull DIR --out MODEL` here",
    )
