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
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mg.pipelines.generated_files import write_generated
from mg.pipelines.output_record import read_record
from mg.pipelines.page_limits import RequestLimits
from mg.pipelines.sampling_checks import check_request, departures_of
from mg.pipelines.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    import gradio

    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["PageRequest", "VideoMaker", "build_page", "check_address", "import_gradio", "open_page"]

logger = logging.getLogger("mg")

MAX_SEED = 2**53 - 1  # larger numbers are not exact in a browser
MAX_PROMPT = 4000  # characters; the longest that any text encoder takes are about half of it
CACHE_SECONDS = 24 * 3600  # after which gradio's copies of videos are removed


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageRequest:
    """What the fields of the page say; what is None is the generator's default.

    Attributes:
        prompt: what the video is to show.
        negative_prompt: what it is pushed away from.
        num_frames: of the video.
        height, width: in pixels.
        steps: steps of the sampler.
        guidance: weight of the text; 1 turns guidance off.
        seed: of the noise.
    """

    prompt: str
    negative_prompt: str = ""
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > MAX_PROMPT:
                given = f"{len(text)} characters" if isinstance(text, str) else repr(text)
                raise ValueError(
                    f"{name}: expected text of at most {MAX_PROMPT} characters, got {given}"
                )
        is_whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not is_whole or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed={self.seed}; expected a whole number from 0 to {MAX_SEED}")

    def settings(self, generator: "TextToVideo") -> SamplingSettings:
        """Return how the video is sampled.

        Raises:
            ValueError: as `check_request`.
        """
        given = dataclasses.asdict(self)
        prompt, _ = given.pop("prompt"), given.pop("seed")
        settings = SamplingSettings.of(generator.defaults, **given)
        check_request(generator, [prompt], settings)
        return settings


class VideoMaker:
    """Makes one video after the other, and keeps each with its JSON in a folder.

    MindSpore runs a network in whichever thread calls it, but only one at a time.
    """

    def __init__(
        self, generator: "TextToVideo", folder: Path, *, origin: dict[str, Any] | None = None
    ) -> None:
        """Keep what videos are made with.

        Args:
            generator: of the videos.
            folder: for the videos; made if missing.
            origin: what else the JSONs say about where the videos come from.
        """
        self.generator = generator
        self.folder = folder.resolve()
        self.origin = origin
        self.folder.mkdir(parents=True, exist_ok=True)
        self._one_at_a_time = threading.Lock()

    def make(
        self, request: PageRequest, on_step: Callable[[int], None] | None = None
    ) -> tuple[Path, dict[str, Any]]:
        """Return the new mp4 and what its JSON says.

        Args:
            request: what is wanted.
            on_step: called after each step of the sampler with how many are done.

        Raises:
            ValueError: as `check_request`, before anything is computed; or a result that is no
                number.
        """
        settings = request.settings(self.generator)
        # Unlike a running number it is free without looking, whoever else writes here.
        name = f"{datetime.now():%Y%m%d_%H%M%S}_{secrets.token_hex(3)}.mp4"
        path = self.folder / name
        with self._one_at_a_time:
            videos = write_generated(
                self.generator,
                [request.prompt],
                [path],
                seeds=[request.seed],
                settings=settings,
                origin=self.origin,
                on_step=on_step,
            )
            list(videos)
        logger.info("%s: %s", path, request.prompt)
        return path, read_record(path)


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
    """Return the page: fields, a button, the video and what is said of it.

    Args:
        maker: of the videos.

    Raises:
        ValueError: gradio is not installed.
    """
    gr = import_gradio()

    check, generate = _handlers(gr, maker)
    with gr.Blocks(
        title="mg: text to video",
        analytics_enabled=False,
        delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
    ) as page:
        with gr.Row():
            with gr.Column():
                fields = _fields(gr, maker.generator)
                button = gr.Button("Generate", variant="primary", elem_id="generate")
            with gr.Column():
                video = gr.Video(
                    label="Video", autoplay=True, loop=True, buttons=["download"], elem_id="video"
                )
                metadata = gr.JSON(label="How it was made", elem_id="metadata")
        # Has a queue of its own: what is wrong is told at once, also while a video is being made.
        checked = button.click(check, fields, concurrency_limit=None, api_visibility="private")
        checked.success(
            generate,
            fields,
            [video, metadata],
            concurrency_limit=1,
            show_progress_on=video,
            api_name="generate",
        )
    return page


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
        app_kwargs={"middleware": [Middleware(RequestLimits)]},
    )
    return address


def _fields(gr: ModuleType, generator: "TextToVideo") -> list["gradio.components.Component"]:
    """Return the fields in the order of `PageRequest`, filled with the defaults."""
    defaults = generator.defaults
    spec, patch = generator.autoencoder.spec, generator.transformer_config.patch
    factors = [spec.h * patch[1], spec.w * patch[2]]

    def number(name, value, label, info):
        return gr.Number(value, label=label, info=info, min_width=120, elem_id=name)

    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, max_length=MAX_PROMPT, elem_id="prompt"
    )
    negative_prompt = gr.Textbox(
        label="Negative prompt", max_lines=8, max_length=MAX_PROMPT, elem_id="negative_prompt"
    )
    with gr.Row():
        num_frames = number(
            "num_frames", defaults.num_frames, "Frames", f"{defaults.fps:g} per second"
        )
        height, width = (
            number(name, size, name.capitalize(), f"pixels, a multiple of {factor}")
            for name, size, factor in zip(("height", "width"), defaults.size, factors, strict=True)
        )
    with gr.Row():
        steps = number("steps", defaults.steps, "Steps", "of the sampler")
        guidance = number("guidance", defaults.guidance, "Guidance", "1 turns it off")
        seed = number("seed", 0, "Seed", "same seed, same video")
    return [prompt, negative_prompt, num_frames, height, width, steps, guidance, seed]


def _handlers(gr: ModuleType, maker: VideoMaker) -> tuple[Callable, Callable]:
    """Return what checks the fields, and what makes their video."""

    def check(*values):
        with _told_to_the_user(gr):
            _request(values).settings(maker.generator)

    # The names are those that gradio's clients show and take.
    def generate(
        prompt,
        negative_prompt,
        num_frames,
        height,
        width,
        steps,
        guidance,
        seed,
        progress=gr.Progress(),  # noqa: B008 - gradio finds it by its default
    ):
        values = (prompt, negative_prompt, num_frames, height, width, steps, guidance, seed)
        with _told_to_the_user(gr):
            request = _request(values)
            settings = request.settings(maker.generator)
            if departures := departures_of(maker.generator, [request.prompt], settings):
                gr.Warning(html.escape(departures, quote=False))
            num_steps = settings.steps
            progress((0, num_steps), desc="Sampling (the first video compiles the networks)")

            def tell(num_done):
                desc = "Sampling" if num_done < num_steps else "Decoding"
                progress((num_done, num_steps), desc=desc)

            path, metadata = maker.make(request, tell)
        return str(path), metadata

    return check, generate


def _request(values: tuple[Any, ...]) -> PageRequest:
    names = [field.name for field in dataclasses.fields(PageRequest)]
    return PageRequest(**dict(zip(names, values, strict=True)))


@contextlib.contextmanager
def _told_to_the_user(gr: ModuleType) -> Iterator[None]:
    """Show a user's fault on the page, in the words of the command line."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        message = html.escape(str(error), quote=False)  # the page takes it for HTML
        raise gr.Error(message, duration=None, print_exception=False) from None
