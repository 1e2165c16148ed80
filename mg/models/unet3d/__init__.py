"""A compact 3-D U-Net that denoises latents, as video-to-video diffusion models have."""
