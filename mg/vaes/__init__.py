"""Video VAEs of all families behind one interface. Importing this loads MindSpore."""

from mg.vaes.causal_vae import CausalVAEModel
from mg.vaes.posterior import Posterior
from mg.vaes.video_vae import Compression, VideoVAE

__all__ = ["CausalVAEModel", "Compression", "Posterior", "VideoVAE"]
