"""The public weights that can be fetched by name: what each is, and where its files are."""

import dataclasses
from pathlib import Path

from mg.file_names import CONFIG_FILE, WEIGHTS_FILE
from mg.known_names import nearest
from mg.shipped import find_shipped

__all__ = ["HUB_MODELS", "HubModel", "find_model", "is_hub_name", "nearest_name"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubModel:
    """One set of public weights.

    Args:
        name: the short one.
        repository: at the hub.
        other_repositories: further names of the same repository.
        subfolder: of the files in the repository; empty for none.
        files: in the subfolder: the config, and the weights.
        family: as which the weights are loaded, one of `mg.models.families.AUTOENCODERS`.
        megabytes: about so many are downloaded.
        licence: of the weights, as far as known here; the repository's page is what counts.
        purpose: what the weights are good for.
        is_gated: whether the hub wants consent to the licence, and a token.
    """

    name: str
    repository: str
    other_repositories: tuple[str, ...] = ()
    subfolder: str = ""
    files: tuple[str, ...] = (CONFIG_FILE, WEIGHTS_FILE)
    family: str
    megabytes: int
    licence: str
    purpose: str
    is_gated: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which the weights are known."""
        return (self.name, self.repository, *self.other_repositories)

    def path_at_hub(self, file: str) -> str:
        """Return the path of one of `files` in the repository."""
        return f"{self.subfolder}/{file}" if self.subfolder else file


HUB_MODELS = (
    HubModel(
        name="opensora",
        repository="hpcai-tech/OpenSora-VAE-v1.2",
        files=(CONFIG_FILE, "model.safetensors"),  # the spatial VAE's weights are in it, too
        family="opensora",
        megabytes=1570,
        licence="Apache-2.0",
        purpose="video VAE 4x8x8, 4 channels, of Open-Sora 1.2",
    ),
    HubModel(
        name="cogvideox-2b",
        repository="THUDM/CogVideoX-2b",
        other_repositories=("zai-org/CogVideoX-2b",),
        subfolder="vae",
        family="cogvideox",
        megabytes=430,
        licence="Apache-2.0",
        purpose="video VAE 4x8x8, 16 channels, of CogVideoX-2b",
    ),
    HubModel(
        name="cogvideox-5b",
        repository="THUDM/CogVideoX-5b",
        other_repositories=("zai-org/CogVideoX-5b",),
        subfolder="vae",
        family="cogvideox",
        megabytes=430,
        licence="CogVideoX License (commercial use needs registration)",
        purpose="video VAE 4x8x8, 16 channels, of CogVideoX-5b",
    ),
    HubModel(
        name="hunyuan",
        repository="tencent/HunyuanVideo",
        subfolder="hunyuan-video-t2v-720p/vae",
        files=(CONFIG_FILE, "pytorch_model.pt"),
        family="hunyuan",
        megabytes=990,
        licence="Tencent Hunyuan Community (not for the EU, the UK and South Korea)",
        purpose="video VAE 4x8x8, 16 channels, of HunyuanVideo",
    ),
    HubModel(
        name="wan-2.1",
        repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        other_repositories=("Wan-AI/Wan2.1-T2V-14B-Diffusers",),
        subfolder="vae",
        family="wan",
        megabytes=508,
        licence="Apache-2.0",
        purpose="video VAE 4x8x8, 16 channels, of Wan 2.1",
    ),
    HubModel(
        name="wan-2.2",
        repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        subfolder="vae",
        family="wan",
        megabytes=2820,
        licence="Apache-2.0",
        purpose="video VAE 4x16x16, 48 channels, of Wan 2.2",
    ),
    HubModel(
        name="video-dc-ae",
        repository="hpcai-tech/Open-Sora-v2-Video-DC-AE",
        files=("F32T4C128_AE.safetensors",),
        family="dc_ae",
        megabytes=1840,
        licence="Apache-2.0",
        purpose="video autoencoder 4x32x32, 128 channels, of Open-Sora 2.0",
    ),
    HubModel(
        name="causal-vae-1.0",
        repository="LanguageBind/Open-Sora-Plan-v1.0.0",
        subfolder="vae",
        family="causal_vae",
        megabytes=990,
        licence="MIT",
        purpose="video VAE 4x8x8, 4 channels, of Open-Sora-Plan 1.0",
    ),
    HubModel(
        name="causal-vae-1.1",
        repository="LanguageBind/Open-Sora-Plan-v1.1.0",
        subfolder="vae",
        family="causal_vae",
        megabytes=990,
        licence="MIT",
        purpose="video VAE 4x8x8, 4 channels, of Open-Sora-Plan 1.1",
    ),
    HubModel(
        name="causal-vae-1.2",
        repository="LanguageBind/Open-Sora-Plan-v1.2.0",
        subfolder="vae",
        files=(CONFIG_FILE, "checkpoint.ckpt"),
        family="causal_vae",
        megabytes=2000,
        licence="MIT",
        purpose="video VAE 4x8x8, 4 channels, of Open-Sora-Plan 1.2",
    ),
    HubModel(
        name="sd-vae",
        repository="stabilityai/sd-vae-ft-mse",
        family="sd",
        megabytes=335,
        licence="MIT",
        purpose="image VAE 8x8, 4 channels, to inflate into a TAE or a CausalVideoVAE",
    ),
    HubModel(
        name="sdxl-vae",
        repository="stabilityai/sdxl-vae",
        family="sd",
        megabytes=335,
        licence="MIT",
        purpose="image VAE 8x8, 4 channels, to inflate into a TAE or a CausalVideoVAE",
    ),
    HubModel(
        name="sd3.5-vae",
        repository="stabilityai/stable-diffusion-3.5-large",
        subfolder="vae",
        family="sd",
        megabytes=170,
        licence="Stability AI Community",
        purpose="image VAE 8x8, 16 channels: the start of the paper's TAE",
        is_gated=True,
    ),
)


def find_model(name: str) -> HubModel:
    """Return the model of a short name or a name at the hub, upper or lower case.

    Raises:
        ValueError: there is none; the nearest name is told.
    """
    for model in HUB_MODELS:
        if name.lower() in map(str.lower, model.names):
            return model
    _refuse_missing_path(name)
    near = nearest_name(name)
    shorts = ", ".join(model.name for model in HUB_MODELS)
    hint = f"did you mean {near!r}?" if near else f"known are {shorts}."
    raise ValueError(
        f"no weights are known by the name {name!r}; {hint} Weights of other origin are loaded by "
        "the path of their file or folder"
    )


def _refuse_missing_path(name: str) -> None:
    """Raise ValueError if a name is the path of a file that is not there, in a folder that is."""
    path = Path(find_shipped(name))
    folder = Path(find_shipped(path.parent))
    if path.exists() or len(path.parts) < 2 or not folder.is_dir():
        return
    names = sorted(entry.name for entry in folder.iterdir())
    near = nearest(path.name, names)
    hint = f"did you mean {str(Path(name).parent / near)!r}?" if near else "look for its name there"
    raise ValueError(f"{name!r} does not exist, but its folder does; {hint}")


def is_hub_name(name: str) -> bool:
    """Return whether `find_model` knows a name."""
    return any(name.lower() in map(str.lower, model.names) for model in HUB_MODELS)


def nearest_name(name: str) -> str | None:
    """Return the known name that is most like another one; None if none is."""
    known = {known.lower(): known for model in HUB_MODELS for known in model.names}
    near = nearest(name.lower(), known)
    return None if near is None else known[near]
