"""A page in the browser that makes videos of prompts, as mg generate does.

One video at a time. All of the page comes from this machine, so it works without network. It needs
gradio, which is an extra: pip install -e ".[demo]".
"""

import contextlib
import dataclasses
import html
import logging
import secrets
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mg.pipelines.page_limits import RequestLimits
from mg.pipelines.page_request import MAX_PROMPT, PageRequest, VideoMaker
from mg.pipelines.sampling_checks import departures_of

if TYPE_CHECKING:
    import gradio

    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["build_page", "check_address", "import_gradio", "open_page"]

logger = logging.getLogger("mg")

CACHE_SECONDS = 24 * 3600  # after which gradio's copies of videos are removed
NUM_REMEMBERED = 8  # videos of one visitor that the page goes on to show
MAX_DRAWN_SEED = 1_000_000  # a number that people can note down
# Small videos are enlarged without blurring their pixels.
CSS = """
#video video, #history video { image-rendering: pixelated; width: 100%; object-fit: contain; }
#problem { border-left: 4px solid #d97706; padding: 0 0.8em; }
"""


class _CancelledError(Exception):
    """The visitor wants the video no longer."""


def import_gradio() -> ModuleType:
    """Return the module gradio.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ValueError(
            f'the page needs gradio, which is not installed ({error}); pip install -e ".[demo]"'
        ) from error
    return gradio


def check_address(host: str, port: int) -> None:
    """Raise unless the page can be served at an address.

    Raises:
        ValueError: no such host or port on this machine, or one that is taken.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"port={port}; expected 1 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ValueError(
            f"the page cannot be served at {host}, port {port}: {error.strerror}; choose another "
            "--port or --host"
        ) from error


def build_page(maker: VideoMaker) -> "gradio.Blocks":
    """Return the page: what the generator can do, fields, the video, those before it.

    Args:
        maker: of the videos.

    Raises:
        ValueError: gradio is not installed.
    """
    gr = import_gradio()
    actions = _actions(gr, maker)
    with gr.Blocks(
        title="mg: text to video",
        analytics_enabled=False,
        delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
    ) as page:
        gr.Markdown(f"# Text to video\n\n{introduction(maker.generator)}", elem_id="introduction")
        with gr.Row():
            with gr.Column():
                fields = _fields(gr, maker.generator)
                with gr.Row():
                    button = gr.Button("Generate", variant="primary", elem_id="generate")
                    cancel = gr.Button("Cancel", elem_id="cancel")
                problem = gr.Markdown(visible=False, elem_id="problem")
            with gr.Column():
                video = gr.Video(
                    label="Video", autoplay=True, loop=True, buttons=["download"], elem_id="video"
                )
                gallery = gr.Gallery(
                    label="Last videos",
                    columns=4,
                    height="auto",
                    fit_columns=False,
                    interactive=False,
                    elem_id="history",
                )
                with gr.Accordion("How it was made", open=False, elem_id="made"):
                    metadata = gr.JSON(show_label=False, elem_id="metadata")
        is_right, history = gr.State(False), gr.State([])
        # Has a queue of its own: errors show at once, also while a video is being made.
        checked = button.click(
            actions.check,
            fields,
            [is_right, problem],
            concurrency_limit=None,
            api_visibility="private",
        )
        checked.then(
            actions.show,
            [is_right, history, *fields],
            [video, metadata, history, gallery, problem],
            concurrency_limit=1,
            concurrency_id="generator",
            show_progress_on=video,
            api_visibility="private",
        )
        cancel.click(actions.cancel, concurrency_limit=None, api_visibility="private")
        # For programs: what is wrong is an error of the call.
        with gr.Row(visible=False):
            call, of_call = gr.Button(), [gr.Video(), gr.JSON()]
        call.click(
            actions.generate,
            fields,
            of_call,
            concurrency_limit=1,
            concurrency_id="generator",
            api_name="generate",
        )
    return page


def introduction(generator: "TextToVideo") -> str:
    """Return in a sentence or two what the generator can do, as Markdown."""
    if generator.scope is None:
        return "Videos of what you describe. This generator does not say what it was trained on."
    text = f"Videos of what you describe, by a generator trained on {generator.scope.summary()}."
    if generator.scope.words:
        text += f" It knows these words: {', '.join(generator.scope.words)}."
    return html.escape(text, quote=False)


def open_page(page: "gradio.Blocks", folder: Path, *, host: str, port: int) -> str:
    """Serve the page in threads of its own and return its address.

    Args:
        page: from `build_page`.
        folder: of the videos, the one place whose files the page may show.
        host, port: where it is served.
    """
    from starlette.middleware import Middleware  # comes with gradio

    logging.getLogger("httpx").setLevel(logging.WARNING)  # of the server asking itself
    warnings.filterwarnings("ignore", module="gradio")  # what its own code uses, not the page
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        allowed_paths=[str(folder.resolve())],
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        # Settings of the environment must not put the page on the internet.
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=0,
        css=CSS,
        app_kwargs={"middleware": [Middleware(RequestLimits)]},
    )
    return address


def _fields(gr: ModuleType, generator: "TextToVideo") -> list["gradio.components.Component"]:
    """Return the fields in the order of `PageRequest`, filled with the defaults."""
    defaults, scope = generator.defaults, generator.scope
    size = "{}x{}".format(*defaults.size)
    sizes = ["{}x{}".format(*pair) for pair in scope.sizes] if scope else []
    lengths = list(scope.num_frames) if scope else []
    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, max_length=MAX_PROMPT, elem_id="prompt"
    )
    if scope and scope.examples:
        gr.Examples(
            [[example] for example in scope.examples],
            [prompt],
            label="Examples",
            elem_id="examples",
        )
    with gr.Row():
        sizes_field, frames_field = (
            gr.Dropdown(
                list(dict.fromkeys([default, *choices])),
                value=default,
                label=label,
                info=info,
                allow_custom_value=True,
                min_width=120,
                elem_id=name,
            )
            for name, default, choices, label, info in (
                ("size", size, sizes, "Size", "height x width, pixels"),
                (
                    "num_frames",
                    defaults.num_frames,
                    lengths,
                    "Frames",
                    f"{defaults.fps:g} per second",
                ),
            )
        )
    with gr.Row():
        seed = gr.Number(
            0, label="Seed", info="same seed, same video", min_width=120, elem_id="seed"
        )
        draw = gr.Button("Random seed", size="sm", scale=0, min_width=120, elem_id="draw_seed")
    draw.click(_draw_seed, None, seed, queue=False, api_visibility="private")
    with gr.Accordion("Advanced settings", open=False, elem_id="advanced"):
        negative_prompt = gr.Textbox(
            label="Negative prompt", max_lines=8, max_length=MAX_PROMPT, elem_id="negative_prompt"
        )
        with gr.Row():
            steps = gr.Number(defaults.steps, label="Steps", info="of the sampler", elem_id="steps")
            guidance = gr.Number(
                defaults.guidance, label="Guidance", info="1 turns it off", elem_id="guidance"
            )
    return [prompt, negative_prompt, frames_field, sizes_field, steps, guidance, seed]


def _draw_seed() -> int:
    return secrets.randbelow(MAX_DRAWN_SEED)


@dataclasses.dataclass(frozen=True)
class _Actions:
    """What the page does: `check`, then `show`; `cancel`; and `generate`, for programs."""

    check: Callable
    show: Callable
    cancel: Callable
    generate: Callable


def _actions(gr: ModuleType, maker: VideoMaker) -> _Actions:
    """Return what the page does when buttons are pressed.

    Args:
        gr: gradio, which finds a visitor by its annotation and the progress by its default.
        maker: of the videos.
    """
    wanted: dict[str, threading.Event] = {}  # by visitor; set once the video is not wanted

    def check(visitor: gr.Request, *values):
        wanted[visitor.session_hash] = threading.Event()
        try:
            _request(values).settings(maker.generator)
        except (ValueError, OSError) as error:
            return False, gr.Markdown(_as_text(str(error)), visible=True)
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
        request = _request(values)
        try:
            path, metadata = _make(maker, request, progress, unwanted)
        except _CancelledError:
            return [*[gr.skip()] * 4, gr.Markdown("Cancelled.", visible=True)]
        except Exception as error:  # the page goes on; the terminal has the whole of it
            logger.exception("%s could not be made", request)
            text = _as_text(f"{type(error).__name__}: {error}")
            return [*[gr.skip()] * 4, gr.Markdown(text, visible=True)]
        finally:
            wanted.pop(visitor.session_hash, None)
        history = [(str(path), request.prompt), *history][:NUM_REMEMBERED]
        departures = departures_of(
            maker.generator, [request.prompt], request.settings(maker.generator)
        )
        note = gr.Markdown(_as_text(departures), visible=bool(departures))
        return [str(path), metadata, history, history, note]

    def cancel(visitor: gr.Request):
        if visitor.session_hash in wanted:
            wanted[visitor.session_hash].set()

    # The names are those that gradio's clients show and take.
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
        with _told_to_the_caller(gr):
            request = _request((prompt, negative_prompt, num_frames, size, steps, guidance, seed))
            path, metadata = _make(maker, request, progress, threading.Event())
        return str(path), metadata

    return _Actions(check, show, cancel, generate)


def _make(
    maker: VideoMaker, request: PageRequest, progress: Callable, unwanted: threading.Event
) -> tuple[Path, dict[str, Any]]:
    """Return the video and its JSON; `progress` shows how far it is.

    Raises:
        _CancelledError: it is wanted no longer.
        ValueError, OSError, FloatingPointError: as `VideoMaker.make`.
    """
    num_steps = request.settings(maker.generator).steps
    progress((0, num_steps), desc="Sampling (the first video compiles the networks)")

    def tell(num_done: int) -> None:
        if unwanted.is_set():
            raise _CancelledError
        desc = "Sampling" if num_done < num_steps else "Decoding"
        progress((num_done, num_steps), desc=desc)

    if unwanted.is_set():  # while it waited for its turn
        raise _CancelledError
    return maker.make(request, tell)


def _request(values: tuple[Any, ...]) -> PageRequest:
    """Return what the fields say; numbers that were typed into a list of choices are text."""
    names = [field.name for field in dataclasses.fields(PageRequest)]
    given = dict(zip(names, values, strict=True))
    text = given["num_frames"]
    if isinstance(text, str) and text.strip().isascii() and text.strip().isdigit():
        given["num_frames"] = int(text[:9])
    return PageRequest(**given)


def _as_text(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    escaped = html.escape(text, quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]#|~$!" else letter for letter in escaped)


@contextlib.contextmanager
def _told_to_the_caller(gr: ModuleType) -> Iterator[None]:
    """Answer a program's fault in the words of the command line."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        message = html.escape(str(error), quote=False)  # the page takes it for HTML
        raise gr.Error(message, duration=None, print_exception=False) from None
