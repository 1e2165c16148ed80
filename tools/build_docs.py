"""Build the documentation's site into outputs/site; a broken link or an unknown name is an error.

python tools/build_docs.py

Pages come from docs/, README.md and CHANGELOG.md; the references of commands, settings and Python
names are made from the code.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.cli.family_settings import KINDS, family_settings, settings_with_families
from mg.cli.setting_names import ONE_NAME
from mg.cli.settings_table import REQUIRED, Setting, settings_of
from mg.commands import COMMANDS
from mg.commands.decode import DecodeConfig
from mg.commands.encode import EncodeConfig
from mg.commands.encode_text import EncodeTextConfig
from mg.commands.eval_edits import EvalEditsConfig
from mg.commands.eval_first_frames import EvalFirstFramesConfig
from mg.commands.eval_prompts import EvalPromptsConfig
from mg.commands.evaluate import EvaluateConfig
from mg.commands.generate import GenerateConfig
from mg.commands.inference_vae import InferenceConfig
from mg.commands.page import DemoConfig
from mg.commands.train_tae import TrainTAEConfig
from mg.commands.train_video_demo import VideoDemoConfig
from mg.training.autoencoder.autoencoder_config import TrainVAEConfig
from mg.training.denoiser.denoiser_config import TrainDenoiserConfig
from mg.training.video_to_video.video_to_video_config import TrainVideoToVideoConfig

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "outputs" / "docs_source"
SITE = ROOT / "outputs" / "site"  # as in mkdocs.yml
SETTINGS = {
    "train-tae": TrainTAEConfig,
    "train-vae": TrainVAEConfig,
    "train": TrainDenoiserConfig,
    "train (with a section pretrained)": TrainVideoToVideoConfig,
    "reconstruct": InferenceConfig,
    "encode": EncodeConfig,
    "decode": DecodeConfig,
    "generate": GenerateConfig,
    "page": DemoConfig,
    "evaluate": EvaluateConfig,
    "evaluate-prompts": EvalPromptsConfig,
    "evaluate-edits": EvalEditsConfig,
    "evaluate-first-frames": EvalFirstFramesConfig,
    "train-demo": VideoDemoConfig,
    "encode-text": EncodeTextConfig,
}
API = {
    "Autoencoders": (
        "mg.models.tae.tae.TemporalAutoencoder",
        "mg.models.tae.config.TAEConfig",
        "mg.models.autoencoder.Autoencoder",
        "mg.latent_spec.LatentSpec",
        "mg.vaes.video_vae.VideoVAE",
        "mg.vaes.posterior.Posterior",
    ),
    "Generation": (
        "mg.pipelines.text_to_video.TextToVideo",
        "mg.pipelines.video_to_video.VideoToVideo",
        "mg.pipelines.generated_videos.GeneratedVideos",
        "mg.training.video_to_video.video_to_video_model.VideoToVideoDiffusion",
        "mg.pipelines.generator_writer.save_generator",
    ),
    "Videos": ("mg.video_files.load_video", "mg.video_files.export_to_video"),
    "Weights": (
        "mg.weights.checkpoint_file.read_weights",
        "mg.weights.conversion.convert_weights",
        "mg.weights.inspection.inspect_checkpoint",
        "mg.weights.hub.fetch",
    ),
}
# Links out of docs/ lead to pages of the site, or to nothing that the site has.
MOVED = {"../README.md": "index.md", "../CHANGELOG.md": "changes.md"}


def main() -> int:
    """Return the exit code of mkdocs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    write_source(SOURCE)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if code == 0 and (found := external_requests(SITE)):
        print("error: pages load from elsewhere: " + ", ".join(found), file=sys.stderr)
        return 1
    if code == 0:
        print(f"The site is in {SITE}; open index.html")
    return code


def write_source(folder: Path) -> None:
    """Write all pages of the site into a folder, replacing what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    for page in folder.glob("*.md"):
        page.write_text(linked(page.read_text(encoding="utf-8")), encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    (folder / "index.md").write_text(linked(readme, from_root=True), encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (folder / "changes.md").write_text(changes, encoding="utf-8")
    (folder / "reference").mkdir()
    for name, text in (("commands", commands()), ("settings", settings()), ("api", api())):
        (folder / "reference" / f"{name}.md").write_text(text, encoding="utf-8")


def linked(text: str, *, from_root: bool = False) -> str:
    """Return a page whose links to files outside the site are their names alone."""

    def of_site(match: re.Match) -> str:
        label, target = match.groups()
        name = f"../{target}" if from_root else target
        if name in MOVED:
            return f"[{label}]({MOVED[name]})"
        outside = name.startswith("../") and (ROOT / "docs" / name.split("#")[0]).exists()
        is_page = from_root and (ROOT / "docs" / target.split("#")[0]).exists()
        return f"{label} (`{name.removeprefix('../')}`)" if outside and not is_page else match[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", of_site, text)


def external_requests(site: Path) -> list[str]:
    """Return what pages would load from other hosts as soon as they open."""
    loading = re.compile(r"<(?:link|script|img|iframe)[^>]*(?:href|src)=[\"']?(https?://[^\"' >]+)")
    pages = (page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    return sorted({address for page in pages for address in loading.findall(page)})


def commands() -> str:
    """Return the page that lists the commands."""
    rows = [f"| `mg {name}` | {command.summary} |" for name, command in COMMANDS.items()]
    names = [
        f"| `--{name}` | {', '.join(f'`--{ours}`' for ours in own)} |"
        for name, own in ONE_NAME.items()
    ]
    return "\n".join(
        [
            "# Commands",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
            "Every command with settings takes these flags, whatever its config calls the thing:",
            "",
            "| flag | stands for the first of these that the command has |",
            "|---|---|",
            *names,
            "",
        ]
    )


def settings() -> str:
    """Return the page of all settings, a table per command."""
    lines = [
        "# Settings",
        "",
        "Every setting is a flag (`--optim.lr 1e-4`) and a key of the YAML file that `--config`",
        "names; flags win. `mg NAME --help` shows the common ones, `mg NAME --help-all` all.",
    ]
    for name, config in SETTINGS.items():
        lines += ["", f"## mg {name}", "", *table_of(settings_of(config))]
        for setting, kind in settings_with_families(config).items():
            lines += ["", f"`{setting}` takes the fields of one of the [{kind}](#{kind})."]
    for kind, (names, _) in KINDS.items():
        lines += ["", f"## {kind.capitalize()}", "", f"Fields of `model`, by family of {kind}."]
        for name in names:
            lines += ["", f"### {kind}: {name}", "", *table_of(family_settings(kind, name))]
    return "\n".join([*lines, ""])


def table_of(settings: list[Setting]) -> list[str]:
    """Return the lines of a table of settings."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        default = (
            f"`{setting.default}`" if setting.default not in ("", REQUIRED) else setting.default
        )
        text = setting.text.replace("|", "\\|").replace("<", "\\<")
        lines.append(f"| `{setting.name}` | {setting.type} | {default} | {text} |")
    return lines


def api() -> str:
    """Return the page that mkdocstrings fills from docstrings."""
    lines = [
        "# Python API",
        "",
        "`from mg import TemporalAutoencoder, TextToVideo, VideoToVideo, VideoVAE, load_video,",
        "export_to_video`;",
        "the rest is imported from its module.",
    ]
    for title, names in API.items():
        lines += ["", f"## {title}", *(f"\n::: {name}" for name in names)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
