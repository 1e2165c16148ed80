"""The fields of the page, filled with what the generator does by default."""

import dataclasses
import secrets
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from mg.pipelines.page_request import MAX_PROMPT
from mg.pipelines.page_uploads import KEEP_SECONDS, limits_text

if TYPE_CHECKING:
    import gradio

    from mg.pipelines.text_to_video import TextToVideo

__all__ = [
    "UploadFields",
    "edit_fields",
    "local_file",
    "reconstruction_fields",
    "text_fields",
    "upload_fields",
]

MAX_DRAWN_SEED = 1_000_000  # a number that people can note down
STRENGTH = 0.6  # of a generator that knows no sources


@dataclasses.dataclass(frozen=True)
class UploadFields:
    """Where a video is uploaded, what it is, and the upload itself, which stays here."""

    file: "gradio.File"
    status: "gradio.Markdown"
    state: "gradio.State"


def local_file(gr: ModuleType, **settings) -> "gradio.File":
    """Return a field for a file that the browser sends; gradio's own fetches addresses too."""
    file = gr.File(file_count="single", type="filepath", **settings)

    def uploaded(path: str | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("files are uploaded, not fetched from an address")
        return path

    async def uploaded_async(path: str | None) -> str | None:
        return uploaded(path)

    # Set on the object: of a class of its own gradio would write a file beside this one.
    file.move_resource_to_block_cache = uploaded
    file.async_move_resource_to_block_cache = uploaded_async
    file.preprocess = lambda payload: None if payload is None else payload.path
    return file


def upload_fields(gr: ModuleType, name: str, discard: Callable) -> UploadFields:
    """Return where a video is uploaded.

    Args:
        gr: gradio.
        name: of the tab.
        discard: deletes an upload whose visitor is gone.
    """
    gr.Markdown(limits_text())
    file = local_file(gr, label="Upload a video", height=120, elem_id=f"{name}_upload")
    status = gr.Markdown(elem_id=f"{name}_status")
    state = gr.State(None, time_to_live=KEEP_SECONDS, delete_callback=discard)
    return UploadFields(file, status, state)


def text_fields(gr: ModuleType, generator: "TextToVideo", *, tab: str = "") -> list:
    """Return the fields in the order of `PageRequest`.

    Args:
        gr: gradio.
        generator: whose defaults they show.
        tab: what the fields' names begin with.
    """
    defaults, scope = generator.defaults, generator.scope
    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, max_length=MAX_PROMPT, elem_id=f"{tab}prompt"
    )
    if scope and scope.examples and not tab:  # gradio shows none in a tab that is not open
        gr.Examples(
            [[example] for example in scope.examples],
            [prompt],
            label="Examples",
            elem_id="examples",
        )
    num_frames, size = _shape_fields(gr, generator, tab=tab)
    with gr.Row():
        seed = gr.Number(
            0, label="Seed", info="same seed, same video", min_width=120, elem_id=f"{tab}seed"
        )
        draw = gr.Button(
            "Random seed", size="sm", scale=0, min_width=120, elem_id=f"{tab}draw_seed"
        )
    draw.click(_draw_seed, None, seed, queue=False, api_visibility="private")
    with gr.Accordion("Advanced settings", open=False, elem_id=f"{tab}advanced"):
        negative_prompt = gr.Textbox(
            label="Negative prompt",
            max_lines=8,
            max_length=MAX_PROMPT,
            elem_id=f"{tab}negative_prompt",
        )
        with gr.Row():
            steps = gr.Number(
                defaults.steps, label="Steps", info="more take longer", elem_id=f"{tab}steps"
            )
            guidance = gr.Number(
                defaults.guidance,
                label="Guidance",
                info="1 turns it off",
                elem_id=f"{tab}guidance",
            )
    return [prompt, negative_prompt, num_frames, size, steps, guidance, seed]


def edit_fields(gr: ModuleType, generator: "TextToVideo") -> list:
    """Return the strength and the fields of `PageRequest`."""
    knows_sources = "source" in generator.conditions.names
    strength = gr.Slider(
        0.05,
        1.0,
        value=1.0 if knows_sources else STRENGTH,
        step=0.05,
        label="Strength",
        info=(
            "1 edits the source as trained; less also begins with the source"
            if knows_sources
            else "how much is made anew: small values keep the source, 1 would leave nothing of it"
        ),
        elem_id="edit_strength",
    )
    return [strength, *text_fields(gr, generator, tab="edit_")]


def reconstruction_fields(gr: ModuleType, generator: "TextToVideo") -> list:
    """Return the number of frames and the size."""
    return _shape_fields(gr, generator, tab="reconstruction_")


def _shape_fields(gr: ModuleType, generator: "TextToVideo", *, tab: str) -> list:
    """Return the number of frames and the size, of which others than those shown may be typed."""
    defaults, scope = generator.defaults, generator.scope
    size = "{}x{}".format(*defaults.size)
    sizes = ["{}x{}".format(*pair) for pair in scope.sizes] if scope else []
    lengths = list(scope.num_frames) if scope else []
    rows = (
        ("size", size, sizes, "Size", "height x width, pixels"),
        ("num_frames", defaults.num_frames, lengths, "Frames", f"{defaults.fps:g} per second"),
    )
    with gr.Row():
        fields = {
            name: gr.Dropdown(
                list(dict.fromkeys([default, *choices])),
                value=default,
                label=label,
                info=info,
                allow_custom_value=True,
                min_width=120,
                elem_id=f"{tab}{name}",
            )
            for name, default, choices, label, info in rows
        }
    return [fields["num_frames"], fields["size"]]


def _draw_seed() -> int:
    return secrets.randbelow(MAX_DRAWN_SEED)
