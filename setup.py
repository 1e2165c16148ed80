"""Installation: pip install -e . (add [test], [demo] or [dev] for more)."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# gradio's newest asks for a hub client that breaks transformers 4.57; keep the hub below 1.0.
DEMO = ["gradio>=6.17,<7", "huggingface_hub<1.0"]
VMAF = ["imageio-ffmpeg>=0.8.1"]
TEST = ["pytest>=8", "pytest-xdist>=3.7", "ruff==0.15.0", *DEMO, *VMAF]

setup(
    name="mg",
    version="0.1.0",
    description="Movie Gen's Temporal Autoencoder and video diffusion on MindSpore",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mg", "mg.*"]),
    python_requires=">=3.10,<3.13",
    install_requires=[
        "mindspore>=2.7.2,<2.11",
        "mindone==0.5.0",
        "numpy<2",
        "safetensors>=0.4",
        "huggingface_hub>=0.34,<1.0",
        "opencv-python>=4.8,<4.12",
        "imageio[pyav]>=2.34",
        "av>=17.1",
        "pyyaml>=6",
        "jsonargparse[signatures]>=4.49,<5",
        "matplotlib>=3.8",
        "pillow>=10",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": TEST,
        "demo": DEMO,
        "vmaf": VMAF,
        "browser": ["playwright>=1.48"],
        "dev": [*TEST, "tensorboardX>=2.6"],
    },
)
