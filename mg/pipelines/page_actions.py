"""What the page does when buttons are pressed."""

import contextlib
import dataclasses
import functools
import html
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mg.conditions.text.encoder import TRUNCATE_HINT
from mg.pipelines.page_reconstruction import ReconstructionRequest
from mg.pipelines.page_request import EditRequest, PageRequest, VideoMaker
from mg.pipelines.page_uploads import Upload, Uploads

__all__ = ["Actions", "ForPrograms", "Job", "as_text", "build_actions"]

logger = logging.getLogger("mg")

NUM_REMEMBERED = 8  # videos of one visitor that the page goes on to show
Request = PageRequest | ReconstructionRequest


class _CancelledError(Exception):
    """The visitor wants the video no longer."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What one button starts: `check`, then `show`."""

    check: Callable
    show: Callable


@dataclasses.dataclass(frozen=True)
class ForPrograms:
    """The calls of programs, which get what is wrong as an error."""

    generate: Callable
    edit: Callable
    reconstruct: Callable


@dataclasses.dataclass(frozen=True)
class Actions:
    """What the page does: a job per tab, what goes with uploads, and calls of programs."""

    text: Job
    edit: Job
    reconstruction: Job
    cancel: Callable
    take: Callable
    release: Callable
    api: ForPrograms


def build_actions(gr: ModuleType, maker: VideoMaker, uploads: Uploads, folder: Path) -> Actions:
    """Return what the page does when buttons are pressed.

    Args:
        gr: gradio, which finds a visitor by its annotation and the progress by its default.
        maker: of the videos.
        uploads: of all visitors.
        folder: for videos that are not kept.
    """
    wanted: dict[str, threading.Event] = {}  # by visitor; set once the video is not wanted
    make = functools.partial(_make, maker, uploads)
    reconstruction = functools.partial(_reconstruction, folder=folder)

    def take(path):
        """Return an upload, what it is, and what is wrong; the field is empty again."""
        try:
            upload = uploads.take(path)
        except (ValueError, OSError) as error:
            problem = gr.Markdown(as_text(str(error).replace(TRUNCATE_HINT, "")), visible=True)
            return None, None, "", problem
        return None, upload, as_text(upload.summary()), gr.Markdown("", visible=False)

    def release(is_right, upload):
        """Delete what a video was made of, or was to be."""
        if not is_right:
            return gr.skip(), gr.skip()
        uploads.discard(upload)
        return None, ""

    def cancel(visitor: gr.Request):
        if visitor.session_hash in wanted:
            wanted[visitor.session_hash].set()

    return Actions(
        _job(gr, maker, make, wanted, _generation),
        _job(gr, maker, make, wanted, _edit),
        _job(gr, maker, make, wanted, reconstruction),
        cancel,
        take,
        release,
        _for_programs(gr, make, uploads, reconstruction),
    )


def _job(
    gr: ModuleType,
    maker: VideoMaker,
    make: Callable,
    wanted: dict[str, threading.Event],
    request_of: Callable[[tuple], Request],
) -> Job:
    """Return what a button starts.

    Args:
        gr, maker, wanted: of `build_actions`.
        make: (request, progress, unwanted) -> what `_make` returns.
        request_of: what the values of the fields say.
    """

    def check(visitor: gr.Request, *values):
        wanted[visitor.session_hash] = threading.Event()
        try:
            request_of(values).settings(maker.generator)
        except (ValueError, OSError) as error:
            return False, gr.Markdown(as_text(str(error).replace(TRUNCATE_HINT, "")), visible=True)
        return True, gr.Markdown("", visible=False)

    def show(
        is_right,
        history,
        visitor: gr.Request,
        progress=gr.Progress(),  # noqa: B008
        *values,
    ):
        unwanted = wanted.pop(visitor.session_hash, None) or threading.Event()
        if not is_right:
            return [gr.skip()] * 5
        wanted[visitor.session_hash] = unwanted
        request = request_of(values)
        try:
            path, metadata, departures = make(request, progress, unwanted)
        except _CancelledError:
            return [*[gr.skip()] * 4, gr.Markdown("Cancelled.", visible=True)]
        except Exception as error:  # the page goes on; the terminal has the whole of it
            logger.exception("%s could not be made", request)
            text = as_text(f"{type(error).__name__}: {error}")
            return [*[gr.skip()] * 4, gr.Markdown(text, visible=True)]
        finally:
            wanted.pop(visitor.session_hash, None)
        if path.is_relative_to(maker.folder):  # kept, so it can be shown again
            history = [(str(path), request.title), *history][:NUM_REMEMBERED]
        note = gr.Markdown(as_text(departures), visible=bool(departures))
        return [str(path), metadata, history, history, note]

    return Job(check, show)


def _for_programs(
    gr: ModuleType, make: Callable, uploads: Uploads, reconstruction: Callable
) -> ForPrograms:
    """Return the calls of programs; names are those that gradio's clients show and take."""

    def run(request_of: Callable[[], Request], progress: Callable):
        with _told_to_the_caller(gr):
            path, metadata, _ = make(request_of(), progress, threading.Event())
        return str(path), metadata

    def with_upload(video: str | None, request_of: Callable, progress: Callable):
        with _told_to_the_caller(gr):
            if video is None:
                raise ValueError("video: no file is given")
            upload = uploads.take(video)
        try:
            return run(lambda: request_of(upload), progress)
        finally:
            uploads.discard(upload)

    def generate(
        prompt,
        negative_prompt,
        num_frames,
        size,
        steps,
        guidance,
        seed,
        progress=gr.Progress(),  # noqa: B008
    ):
        values = prompt, negative_prompt, num_frames, size, steps, guidance, seed
        return run(lambda: _generation(values), progress)

    def edit(
        video,
        strength,
        prompt,
        negative_prompt,
        num_frames,
        size,
        steps,
        guidance,
        seed,
        progress=gr.Progress(),  # noqa: B008
    ):
        values = strength, prompt, negative_prompt, num_frames, size, steps, guidance, seed
        return with_upload(video, lambda upload: _edit((upload, *values)), progress)

    def reconstruct(
        video,
        num_frames,
        size,
        progress=gr.Progress(),  # noqa: B008
    ):
        values = num_frames, size
        return with_upload(video, lambda upload: reconstruction((upload, *values)), progress)

    return ForPrograms(generate, edit, reconstruct)


def _make(
    maker: VideoMaker,
    uploads: Uploads,
    request: Request,
    progress: Callable,
    unwanted: threading.Event,
) -> tuple[Path, dict[str, Any], str]:
    """Return the video, its JSON and what is new to the generator; `progress` shows how far it is.

    Raises:
        _CancelledError: it is wanted no longer.
        ValueError, OSError, FloatingPointError: as `VideoMaker.make`.
    """
    settings = request.settings(maker.generator)
    departures = request.departures(maker.generator, settings)
    num_steps = request.num_steps(settings)
    progress((0, num_steps), desc="Computing (the first video compiles the networks)")

    def tell(num_done: int) -> None:
        if unwanted.is_set():
            raise _CancelledError
        desc = "Sampling" if num_done < num_steps else "Decoding"
        progress((num_done, num_steps), desc=desc)

    if unwanted.is_set():  # while it waited for its turn
        raise _CancelledError
    return *request.run(maker, uploads, settings, tell), departures


def _given(values: tuple[Any, ...]) -> dict[str, Any]:
    """Return the values of the fields of `PageRequest`, in their order, by name."""
    names = [field.name for field in dataclasses.fields(PageRequest)]
    given = dict(zip(names, values, strict=True))
    # A field that was not seen yet, in a folded part of a tab, has no text.
    given |= {name: given[name] or "" for name in ("prompt", "negative_prompt")}
    return given | {"num_frames": _as_number(given["num_frames"])}


def _generation(values: tuple[Any, ...]) -> PageRequest:
    """Return what the fields of `PageRequest` say, in their order."""
    return PageRequest(**_given(values))


def _edit(values: tuple[Any, ...]) -> EditRequest:
    """Return what an upload, a strength and the fields of `PageRequest` say."""
    upload, strength, *others = values
    return EditRequest(**_given(tuple(others)), upload=_upload(upload), strength=strength)


def _reconstruction(values: tuple[Any, ...], *, folder: Path) -> ReconstructionRequest:
    """Return what an upload and the fields beside it say."""
    upload, num_frames, size = values
    num_frames = _as_number(num_frames)
    return ReconstructionRequest(
        upload=_upload(upload), num_frames=num_frames, size=size, folder=folder
    )


def _upload(value: Upload | None) -> Upload | None:
    return value if isinstance(value, Upload) else None


def _as_number(value: Any) -> Any:
    """Return a number that was typed into a list of choices, which is text, as a number."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value[:9])
    return value


def as_text(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    escaped = html.escape(text, quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]#|~$!" else letter for letter in escaped)


@contextlib.contextmanager
def _told_to_the_caller(gr: ModuleType) -> Iterator[None]:
    """Answer a program's fault in the words of the command line."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        message = html.escape(
            str(error).replace(TRUNCATE_HINT, ""), quote=False
        )  # the page takes it for HTML
        raise gr.Error(message, duration=None, print_exception=False) from None
