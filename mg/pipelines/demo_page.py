"""A page in the browser: videos of prompts, of other videos, and through the autoencoder.

One video at a time. All of the page comes from this machine, so it works without network. It needs
gradio, which is an extra: pip install -e ".[demo]".
"""

import html
import logging
import socket
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from mg.extras import needs_extra
from mg.pipelines.page_actions import Actions, ForPrograms, Job, build_actions
from mg.pipelines.page_fields import (
    UploadFields,
    edit_fields,
    local_file,
    reconstruction_fields,
    text_fields,
    upload_fields,
)
from mg.pipelines.page_limits import RequestLimits
from mg.pipelines.page_request import VideoMaker
from mg.pipelines.page_uploads import MAX_UPLOAD_BYTES, Uploads

if TYPE_CHECKING:
    import gradio

    from mg.pipelines.text_to_video import TextToVideo

__all__ = ["build_page", "check_address", "import_gradio", "open_page"]

CACHE_SECONDS = 24 * 3600  # after which gradio's copies of videos are removed
# Small videos are enlarged without blurring their pixels.
CSS = """
#video video, #history video { image-rendering: pixelated; width: 100%; object-fit: contain; }
#problem { border-left: 4px solid #d97706; padding: 0 0.8em; }
"""


def import_gradio() -> ModuleType:
    """Return the module gradio.

    Raises:
        ValueError: it is not installed.
    """
    with needs_extra("demo", "the page needs"):
        import gradio
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
    """Return the page: what the generator can do, a tab for each thing, the video, those before it.

    Args:
        maker: of the videos.

    Raises:
        ValueError: gradio is not installed.
    """
    gr = import_gradio()
    uploads = Uploads()
    with gr.Blocks(
        title="mg: text to video",
        analytics_enabled=False,
        delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
    ) as page:
        page.unload(uploads.forget_old)
        gr.Markdown(f"# Text to video\n\n{introduction(maker.generator)}", elem_id="introduction")
        with gr.Row():
            with gr.Column():
                tabs = _tabs(gr, maker.generator, uploads)
                cancel = gr.Button("Cancel", elem_id="cancel")
                problem = gr.Markdown(visible=False, elem_id="problem")
            with gr.Column():
                video, metadata, gallery = _results(gr)
        actions = build_actions(gr, maker, uploads, Path(video.GRADIO_CACHE))
        shown = [video, metadata, gr.State([]), gallery, problem]
        jobs = actions.text, actions.edit, actions.reconstruction
        for tab, job in zip(tabs, jobs, strict=True):
            _connect(gr, tab, job, actions, shown)
        cancel.click(actions.cancel, concurrency_limit=None, api_visibility="private")
        with gr.Row(visible=False):
            _serve_programs(gr, actions.api, tabs)
    return page


class _Tab(NamedTuple):
    """What one tab has: a button, fields, and where a video is uploaded, if one is."""

    button: "gradio.Button"
    fields: list["gradio.components.Component"]
    upload: UploadFields | None = None


def _tabs(gr: ModuleType, generator: "TextToVideo", uploads: Uploads) -> list[_Tab]:
    """Return the tabs: text to video, video to video, reconstruction."""

    def button(label: str, name: str) -> "gradio.Button":
        return gr.Button(label, variant="primary", elem_id=name)

    with gr.Tabs():
        with gr.Tab("Text to video"):
            fields = text_fields(gr, generator)
            tabs = [_Tab(button("Generate", "generate"), fields)]
        with gr.Tab("Video to video"):
            upload = upload_fields(gr, "edit", uploads.discard)
            fields = edit_fields(gr, generator)
            tabs.append(_Tab(button("Generate", "remake"), fields, upload))
        with gr.Tab("Reconstruction"):
            upload = upload_fields(gr, "reconstruction", uploads.discard)
            fields = reconstruction_fields(gr, generator)
            tabs.append(_Tab(button("Reconstruct", "reconstruct"), fields, upload))
    return tabs


def _results(gr: ModuleType) -> tuple["gradio.Video", "gradio.JSON", "gradio.Gallery"]:
    """Return where the video is shown, what is told of it, and those before it."""
    video = gr.Video(label="Video", autoplay=True, loop=True, buttons=["download"], elem_id="video")
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
    return video, metadata, gallery


def _connect(gr: ModuleType, tab: _Tab, job: Job, actions: Actions, shown: list) -> None:
    """Have a tab's button check, then make and show a video; and its upload taken.

    Args:
        gr: gradio.
        tab: with the button and the fields.
        job: what the button starts.
        actions: of the page.
        shown: video, JSON, history, gallery and problem.
    """
    video, _, history, _, problem = shown
    fields = tab.fields if tab.upload is None else [tab.upload.state, *tab.fields]
    is_right = gr.State(False)
    # Has a queue of its own: what is wrong is reported at once, also while a video is being made.
    done = tab.button.click(
        job.check, fields, [is_right, problem], concurrency_limit=None, api_visibility="private"
    ).then(
        job.show,
        [is_right, history, *fields],
        shown,
        concurrency_limit=1,
        concurrency_id="generator",
        show_progress_on=video,
        api_visibility="private",
    )
    if tab.upload is None:
        return
    file, status, state = tab.upload.file, tab.upload.status, tab.upload.state
    done.then(actions.release, [is_right, state], [state, status], api_visibility="private")
    file.upload(
        actions.take,
        file,
        [file, state, status, problem],
        concurrency_limit=None,
        api_visibility="private",
    )


def _serve_programs(gr: ModuleType, api: ForPrograms, tabs: list[_Tab]) -> None:
    """Have calls for programs, which get what is wrong as an error of the call."""
    for name, tab in zip(("generate", "edit", "reconstruct"), tabs, strict=True):
        call, of_call = gr.Button(), [gr.Video(), gr.JSON()]
        video = [] if tab.upload is None else [local_file(gr, label="video")]
        call.click(
            getattr(api, name),
            [*video, *tab.fields],
            of_call,
            concurrency_limit=1,
            concurrency_id="generator",
            api_name=name,
        )


def introduction(generator: "TextToVideo") -> str:
    """Return in a sentence or two what the generator can do, as Markdown."""
    if generator.scope is None:
        return "Generates videos from text. This generator does not say what it was trained on."
    text = f"Generates videos from text. Trained on {generator.scope.summary()}."
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
        max_file_size=MAX_UPLOAD_BYTES,
        css=CSS,
        app_kwargs={"middleware": [Middleware(RequestLimits)]},
    )
    return address
