"""Public weights by name: fetched from the hub once, verified on every use.

Files are kept in `~/.cache/mg/weights/NAME` (`MG_CACHE` replaces `~/.cache/mg`). What lies there
already, from an earlier run or put there by hand, is used without network. `HF_ENDPOINT` names a
mirror of the hub, `HF_TOKEN` the token for weights that the hub gives to known users only.
"""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from mg.extras import needs_extra
from mg.input_files import check_input_file
from mg.weights.hub_models import HUB_MODELS, HubModel, find_model, is_hub_name
from mg.weights.lock_file import file_record, read_lock, verify_file, write_lock

__all__ = ["HUB_MODELS", "HubModel", "fetch", "find_model", "is_hub_name", "weights_folder"]

logger = logging.getLogger("mg")

DEFAULT_ENDPOINT = "https://huggingface.co"
STAGING_NAME = ".download"  # unfinished files, which the next attempt goes on with
REACH_SECONDS = 10
MAX_REASON_CHARACTERS = 200
SHA256_DIGITS = 64  # the hub's tag of a large file is its SHA-256; that of a small one is shorter


class Downloaded(NamedTuple):
    """A file as it came from the hub: where, of which commit, its SHA-256 if the hub tells it."""

    path: Path
    revision: str
    sha256: str | None


def weights_folder() -> Path:
    """Return the folder of all fetched weights: `~/.cache/mg/weights`, or `$MG_CACHE/weights`."""
    return Path(os.environ.get("MG_CACHE") or Path.home() / ".cache" / "mg") / "weights"


def fetch(name: str, *, cache_folder: str | os.PathLike | None = None) -> Path:
    """Return the folder with `config.json` and the weights of a model, after fetching what is
    missing.

    Every file's size and SHA-256 are recorded when it is seen first, and verified on each call.
    Large downloads go on where they stopped; a file appears under its name only when it is whole.

    Args:
        name: a short name (`cogvideox-5b`) or a name at the hub (`THUDM/CogVideoX-5b`).
        cache_folder: where the models' folders are; None takes `weights_folder()`.

    Raises:
        ValueError: unknown name; a file is not as it was when it was first seen; or files have to
            be fetched and the hub's client is not installed.
        ConnectionError: the hub cannot be reached; tells how to do it by hand.
        PermissionError: the hub wants consent to the licence, or a token.
        FileNotFoundError: the hub has no such file.
        OSError: a file came damaged or could not be written; what was there is intact.
    """
    model = find_model(name)
    folder = Path(cache_folder or weights_folder()) / model.name
    missing = _check_present(model, folder)
    if missing:
        with needs_extra("hub", f"fetching {model.name} needs"):
            from huggingface_hub.utils import WeakFileLock

        folder.mkdir(parents=True, exist_ok=True)
        # Several processes may want the same files: one fetches, the others wait for it.
        with WeakFileLock(folder / ".lock"):
            missing = _check_present(model, folder)
            if missing:
                _check_reachable(model, folder)
            for file in missing:
                _fetch_file(model, file, folder)
            shutil.rmtree(folder / STAGING_NAME, ignore_errors=True)
    return folder


def _check_present(model: HubModel, folder: Path) -> list[str]:
    """Return the files that are missing, after verifying or recording those that are there."""
    lock = read_lock(folder)
    missing = [file for file in model.files if not (folder / file).is_file()]
    new = [file for file in model.files if file not in lock and file not in missing]
    for file in model.files:
        if file in lock and file not in missing:
            verify_file(folder / file, lock[file])
    for file in new:
        check_input_file(folder / file)
        if (folder / file).stat().st_size == 0:
            raise ValueError(f"{folder / file} is empty; delete it and fetch it again")
        lock[file] = file_record(folder / file)
        logger.info("%s: recorded as it is, SHA-256 %s", folder / file, lock[file]["sha256"])
    if new:
        write_lock(folder, lock, source=model.repository)
    return missing


def _check_reachable(model: HubModel, folder: Path) -> None:
    """Raise ConnectionError if the hub does not answer; its client would try for half a minute."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(_endpoint(), timeout=REACH_SECONDS, allow_redirects=False)
    except Exception as error:
        raise _explained(error, model, model.files[0], folder) from error


def _fetch_file(model: HubModel, file: str, folder: Path) -> None:
    """Download one file, check it, record it, and give it its name."""
    lock = read_lock(folder)
    wanted = lock.get(file, {})
    logger.info("Fetching %s of %s", model.path_at_hub(file), model.repository)
    try:
        came = _download(
            model.repository,
            model.path_at_hub(file),
            folder / STAGING_NAME,
            revision=wanted.get("revision"),
        )
    except Exception as error:
        raise _explained(error, model, file, folder) from error
    record = file_record(came.path)
    for sha256 in (came.sha256, wanted.get("sha256")):
        if sha256 not in (None, record["sha256"]):
            came.path.unlink()
            raise OSError(
                f"{file} of {model.repository} came damaged: its SHA-256 is {record['sha256']} "
                f"instead of {sha256}. It has been deleted; run this again"
            )
    lock[file] = {**record, "revision": came.revision}
    write_lock(folder, lock, source=model.repository)
    os.replace(came.path, folder / file)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def _download(
    repository: str, filename: str, folder: Path, *, revision: str | None = None
) -> Downloaded:
    """Return a file of a repository, downloaded below `folder`, with a progress bar.

    An unfinished file of an earlier attempt is completed.

    Raises:
        Exception: whatever the hub's client raises.
    """
    # The hub's newer protocol begins interrupted files anew and goes past mirrors.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(repository, filename, revision=revision, endpoint=_endpoint())
    metadata = get_hf_file_metadata(url)
    path = hf_hub_download(
        repository,
        filename,
        revision=metadata.commit_hash or revision,
        local_dir=folder,
        endpoint=_endpoint(),
    )
    tag = metadata.etag or ""
    sha256 = tag if len(tag) == SHA256_DIGITS else None
    return Downloaded(Path(path), metadata.commit_hash or "", sha256)


def _explained(error: Exception, model: HubModel, file: str, folder: Path) -> Exception:
    """Return what to raise for an error of the hub's client, with what to do about it."""
    import requests
    from huggingface_hub import errors

    page = f"{_endpoint()}/{model.repository}"
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"{model.repository} is given only to users who agree to its licence "
            f"({model.licence}): log in and agree at {page}, make a token at "
            f"{_endpoint()}/settings/tokens, and run this again with HF_TOKEN=hf_... set"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return PermissionError(
            f"the hub shows no repository {model.repository} to this user. See {page}; if it asks "
            "for a login, set HF_TOKEN to a valid token"
        )
    is_local = isinstance(error, errors.LocalEntryNotFoundError)
    if isinstance(error, errors.EntryNotFoundError) and not is_local:
        return FileNotFoundError(
            f"{model.repository} has no file {model.path_at_hub(file)} (any more): look for it at "
            f"{page}/tree/main and put it, named {file}, into {folder}"
        )
    unreachable = (requests.RequestException, errors.FileMetadataError, ConnectionError)
    if is_local or isinstance(error, unreachable):
        return ConnectionError(f"{_reason(error)}\n{_by_hand(model, folder)}")
    return error


def _reason(error: Exception) -> str:
    """Return one line about an error of the network, without its inner workings."""
    text = " ".join(str(error).split())
    system_fault = re.search(r"\[Errno -?\d+\] ([\w ]+)", text)
    reason = system_fault[1] if system_fault else text[:MAX_REASON_CHARACTERS].rstrip(".")
    return f"cannot fetch from {_endpoint()}: {reason or type(error).__name__}."


def _by_hand(model: HubModel, folder: Path) -> str:
    """Return how to get the missing files without this program."""
    files = [file for file in model.files if not (folder / file).is_file()]
    addresses = [
        f"    {_endpoint()}/{model.repository}/resolve/main/{model.path_at_hub(file)}"
        for file in files
    ]
    return "\n".join(
        [
            "Set HF_ENDPOINT to a mirror that can be reached, or download by hand",
            *addresses,
            "into the folder",
            f"    {folder}",
            "and run this again (a broken download goes on where it stopped).",
        ]
    )
