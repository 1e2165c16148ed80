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
from typing import TYPE_CHECKING

from mg.pipelines.page_actions import ForPrograms, build_actions
from mg.pipelines.page_fields import (
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
                with gr.Tabs():
                    with gr.Tab("Text to video", elem_id="tab_text"):
                        text = text_fields(gr, maker.generator)
                        generate = gr.Button("Generate", variant="primary", elem_id="generate")
                    with gr.Tab("Video to video", elem_id="tab_edit"):
                        source = upload_fields(gr, "edit", uploads.discard)
                        edit = edit_fields(gr, maker.generator)
                        remake = gr.Button("Generate", variant="primary", elem_id="remake")
                    with gr.Tab("Reconstruction", elem_id="tab_reconstruction"):
                        original = upload_fields(gr, "reconstruction", uploads.discard)
                        settings = reconstruction_fields(gr, maker.generator)
                        reconstruct = gr.Button(
                            "Reconstruct", variant="primary", elem_id="reconstruct"
                        )
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
        actions = build_actions(gr, maker, uploads, Path(video.GRADIO_CACHE))
        is_right, history = gr.State(False), gr.State([])
        shown = [video, metadata, history, gallery, problem]
        for job, button, fields, given in (
            (actions.text, generate, text, None),
            (actions.edit, remake, [source.state, *edit], source),
            (actions.reconstruction, reconstruct, [original.state, *settings], original),
        ):
            # Has a queue of its own: what is wrong is told at once, also while a video is made.
            done = button.click(
                job.check,
                fields,
                [is_right, problem],
                concurrency_limit=None,
                api_visibility="private",
            ).then(
                job.show,
                [is_right, history, *fields],
                shown,
                concurrency_limit=1,
                concurrency_id="generator",
                show_progress_on=video,
                api_visibility="private",
            )
            if given is not None:
                done.then(
                    actions.release,
                    [is_right, given.state],
                    [given.state, given.status],
                    api_visibility="private",
                )
                given.file.upload(
                    actions.take,
                    given.file,
                    [given.file, given.state, given.status, problem],
                    concurrency_limit=None,
                    api_visibility="private",
                )
        cancel.click(actions.cancel, concurrency_limit=None, api_visibility="private")
        with gr.Row(visible=False):
            _serve_programs(gr, actions.api, text, edit, settings)
    return page


def _serve_programs(
    gr: ModuleType, api: ForPrograms, text: list, edit: list, settings: list
) -> None:
    """Have calls for programs, which get what is wrong as an error of the call."""
    for name, fields in (("generate", text), ("edit", edit), ("reconstruct", settings)):
        call, of_call = gr.Button(), [gr.Video(), gr.JSON()]
        video = [] if name == "generate" else [local_file(gr, label="video")]
        call.click(
            getattr(api, name),
            [*video, *fields],
            of_call,
            concurrency_limit=1,
            concurrency_id="generator",
            api_name=name,
        )


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
        max_file_size=MAX_UPLOAD_BYTES,
        css=CSS,
        app_kwargs={"middleware": [Middleware(RequestLimits)]},
    )
    return address
