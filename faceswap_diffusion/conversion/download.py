"""Downloads REFace's checkpoint from the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REFACE_REPOSITORY = "Sanoojan/REFace"
REFACE_FILE = "last.ckpt"


def download_reface(
    repo_id: str = REFACE_REPOSITORY, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Downloads REFace's `last.ckpt` to the Hub's cache, or finds it there.

    An interrupted download is resumed.

    Args:
        repo_id (`str`): `owner/name`.
        revision (`str`, *optional*): Branch, tag or commit.
        cache_dir (`str` or `Path`, *optional*): Of the cache; the Hub's usual one if left out.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If it is not available; the message says why.
    """
    try:
        return Path(hf_hub_download(repo_id, REFACE_FILE, revision=revision, cache_dir=cache_dir))
    except GatedRepoError as error:
        reason = f"it is gated: accept its terms at https://huggingface.co/{repo_id} and log in with `hf auth login`"
        raise ValueError(f"{REFACE_FILE} of {repo_id} cannot be had: {reason}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"there is no Hub repository {repo_id}, or it is private: check the name and the token"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"Hub repository {repo_id} has no revision {revision}") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(f"the Hub cannot be reached, and {REFACE_FILE} of {repo_id} is not in the cache") from error
    except EntryNotFoundError as error:
        raise ValueError(f"Hub repository {repo_id} holds no {REFACE_FILE}: it is not REFace's") from error
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no Hub id like owner/name") from error
    except OSError as error:
        raise ValueError(f"{REFACE_FILE} of {repo_id} cannot be had: {error}") from error
