"""Names of the files in the folders of models, as diffusers gives them."""

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
