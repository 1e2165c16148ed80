"""Make the README's two animations with the weights that ship: docs/images/*.gif.

python tools/make_pictures.py

Make them again when the weights change. Takes about two minutes of one CPU core.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli import run_main
from mg.data.animation import write_gif
from mg.data.contact_sheet import captioned
from mg.data.transforms import from_model_range
from mg.device import DeviceConfig, setup_device
from mg.video_files import load_video

CLIPS = {"city_b_cc0.mp4": 16, "dog_ccbysa4.mp4": 20}  # file: number of the first frame
NUM_FRAMES, SIZE = 16, 96
PROMPTS = (
    "a cyan square moving left on a black background",
    "a blue circle moving down on a black background",
    "a red triangle moving right on a white background",
    "a yellow circle moving up on a gray background",
)


def main() -> None:
    """Parse, load, write both animations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_folder", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().output_folder
    folder.mkdir(parents=True, exist_ok=True)
    setup_device(DeviceConfig())
    write_gif(folder / "reconstruction.gif", reconstructions(), fps=10, overwrite=True)
    write_gif(folder / "text_to_video.gif", generated(), fps=10, overwrite=True)
    for path in sorted(folder.glob("*.gif")):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def reconstructions() -> list[np.ndarray]:
    """Return frames that show original | reconstruction of two held-out clips."""
    from mg.vaes.video_vae import VideoVAE

    vae = VideoVAE.from_pretrained("assets/tae_tiny/tae_tiny.safetensors")
    clips = []
    for name, start in CLIPS.items():
        video = load_video(
            f"assets/clips/test/{name}", num_frames=NUM_FRAMES, size=SIZE, start=start
        )
        z = vae.encode(video).mode()
        again = vae.decode(z, NUM_FRAMES).asnumpy()
        clips += [(video, "original"), (again, f"from {z.size:,} numbers")]
    shown = [(from_model_range(video[0]), caption) for video, caption in clips]
    return side_by_side(shown, enlarge=2)


def generated() -> list[np.ndarray]:
    """Return frames of one video per prompt, its prompt below."""
    from mg.pipelines.text_to_video import TextToVideo

    generator = TextToVideo.from_pretrained("assets/shapes_generator")
    videos = generator(PROMPTS, batch_size=len(PROMPTS)).frames
    return side_by_side(list(zip(videos, PROMPTS, strict=True)), enlarge=3)


def side_by_side(clips: list[tuple[np.ndarray, str]], *, enlarge: int) -> list[np.ndarray]:
    """Return frames of (video (T, H, W, 3), caption) beside each other, pixels made larger."""
    cells = []
    for video, caption in clips:
        large = video.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
        cells.append([captioned(frame, caption) for frame in large])
    height = max(cell[0].shape[0] for cell in cells)
    frames = []
    for row in zip(*cells, strict=True):
        padded = [
            np.pad(c, ((0, height - len(c)), (2, 2), (0, 0)), constant_values=255) for c in row
        ]
        frames.append(np.concatenate(padded, axis=1))
    return frames


if __name__ == "__main__":
    run_main(main)
