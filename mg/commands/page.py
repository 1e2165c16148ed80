"""Open a page in the browser that makes videos of prompts and videos; pip install -e ".[demo]".

mg page
"""

import dataclasses
import logging
from pathlib import Path

from mg.cli import parse_config
from mg.device import DeviceConfig, setup_device
from mg.files import check_writable_folder
from mg.pipelines.demo_page import build_page, check_address, import_gradio, open_page
from mg.pipelines.generator_folder import SHIPPED_GENERATOR, load_generator
from mg.pipelines.page_request import VideoMaker
from mg.tiling.sizes import Tiling

logger = logging.getLogger("mg")

# What --help shows.
COMMON = ("checkpoint", "output_folder", "host", "port", "dtype", "device")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoConfig(DeviceConfig):
    """A page for one user or a few who trust each other: it asks for no password.

    Args:
        checkpoint: folder of a generator (model_index.json, denoiser, autoencoder, conditions); by
            default the one that ships here, of moving shapes.
        host: address to serve the page at; 127.0.0.1 is seen from this machine only, 0.0.0.0 from
            all that reach it.
        port: port of the address.
        output_folder: every video and its JSON is kept there, under a new name.
        dtype: precision of the transformer, float32, float16 or bfloat16.
        decode_dtype: precision of the TAE's decoder, float32, float16 or bfloat16.
        tiling: sizes of the decoder's tiles in frames and pixels.
    """

    checkpoint: str = str(SHIPPED_GENERATOR)
    host: str = "127.0.0.1"
    port: int = 7860
    output_folder: str = "outputs/page"
    dtype: str = "float32"
    decode_dtype: str = "float32"
    tiling: Tiling = dataclasses.field(default_factory=Tiling)


def main() -> None:
    """Parse, check, load, serve until Ctrl+C."""
    config = parse_config(DemoConfig, description=__doc__, common=COMMON)
    check_address(config.host, config.port)
    import_gradio()
    check_writable_folder(config.output_folder)
    parts = load_generator(config.checkpoint)
    setup_device(config)
    # MindSpore takes seconds to import; a wrong flag is answered before.
    from mg.pipelines.text_to_video import TextToVideo

    generator = TextToVideo(
        parts, dtype=config.dtype, decode_dtype=config.decode_dtype, tiling=config.tiling
    )
    origin = {"checkpoint": str(Path(config.checkpoint).resolve())}
    maker = VideoMaker(generator, Path(config.output_folder), origin=origin)
    page = build_page(maker)
    address = open_page(page, maker.folder, host=config.host, port=config.port)
    logger.info("The page is at %s and keeps its videos in %s.", address, maker.folder)
    logger.info("Ctrl+C ends it.")
    page.block_thread()
