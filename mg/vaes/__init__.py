"""Video VAEs of all families behind one interface. Importing this loads MindSpore."""

from mg.vaes.posterior import Posterior
from mg.vaes.video_vae import Compression, VideoVAE

__all__ = ["Compression", "Posterior", "VideoVAE"]
