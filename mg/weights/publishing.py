"""A folder of weights given to the model hub, with a card that says what it is.

`HF_ENDPOINT` names another hub than huggingface.co, `HF_TOKEN` the token of who uploads; without it
the token of `hf auth login` is taken.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mg.extras import needs_extra
from mg.files import write_text

__all__ = ["CARD_NAME", "Publishable", "model_card", "push_folder", "write_card"]

CARD_NAME = "README.md"
MAX_SHOWN = 40  # entries of a config that a card lists


def model_card(
    title: str, *, pipeline_tag: str, about: str, usage: str, config: Mapping[str, Any]
) -> str:
    """Return a model card in Markdown, as the hub shows it, with blanks for its author to fill.

    Args:
        title: of the model.
        pipeline_tag: the hub's word for what it does, such as "text-to-video".
        about: a paragraph on what it is.
        usage: Python that loads it from the folder with its files.
        config: its sizes.
    """
    rows = [f"| {key} | {json.dumps(value)} |" for key, value in list(config.items())[:MAX_SHOWN]]
    return "\n".join(
        [
            "---",
            "library_name: mg",
            f"pipeline_tag: {pipeline_tag}",
            "---",
            "",
            f"# {title}",
            "",
            about,
            "",
            "```python",
            usage,
            "```",
            "",
            "| setting | value |",
            "|---|---|",
            *rows,
            "",
            "Data, licence, metrics and limits: not stated by its author yet.",
            "",
        ]
    )


def write_card(folder: str | os.PathLike, card: str) -> None:
    """Write a model card into a folder, unless one is there already: its author's stays."""
    if not (Path(folder) / CARD_NAME).exists():
        write_text(Path(folder) / CARD_NAME, card)


class Publishable:
    """What has `save_pretrained` can be given to the model hub."""

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        commit_message: str = "Upload the model",
    ) -> str:
        """Return the address of a repository at the model hub, after saving the model there.

        Args:
            repository, private, commit_message: as `mg.weights.publishing.push_folder`.

        Raises:
            ValueError, PermissionError, ConnectionError: as `push_folder`.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            self.save_pretrained(folder)
            return push_folder(folder, repository, private=private, commit_message=commit_message)


def push_folder(
    folder: str | os.PathLike,
    repository: str,
    *,
    private: bool = False,
    commit_message: str = "Upload the model",
) -> str:
    """Return the address of a repository at the hub, after giving it all files of a folder.

    Args:
        folder: whose files, in subfolders too, are uploaded; other files of the repository stay.
        repository: "OWNER/NAME"; it is made if there is none.
        private: whether a new repository is seen by its owner alone.
        commit_message: of the upload.

    Raises:
        ValueError: `repository` is not such a name, or the hub's client is not installed.
        PermissionError: there is no token, or it may not write there.
        ConnectionError: the hub cannot be reached.
    """
    # The hub's newer protocol goes past mirrors.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    with needs_extra("hub", "publishing models needs"):
        import requests
        from huggingface_hub import HfApi, errors

    endpoint = os.environ.get("HF_ENDPOINT") or None
    api = HfApi(endpoint=endpoint, token=os.environ.get("HF_TOKEN") or None)
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id, folder_path=Path(folder), commit_message=commit_message
        )
    except errors.HFValidationError as error:
        raise ValueError(f"repository={repository!r}; expected OWNER/NAME: {error}") from error
    except (errors.LocalTokenNotFoundError, errors.HfHubHTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.HfHubHTTPError) and status not in (401, 403):
            raise ConnectionError(f"{api.endpoint} answered: {_one_line(error)}") from error
        raise PermissionError(
            f"{api.endpoint} takes nothing for {repository} from this user ({_one_line(error)}); "
            f"make a token that may write at {api.endpoint}/settings/tokens and set HF_TOKEN"
        ) from error
    except (requests.RequestException, OSError) as error:
        raise ConnectionError(f"{api.endpoint} cannot be reached: {_one_line(error)}") from error
    return str(address)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
