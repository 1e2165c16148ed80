"""Training a denoiser that edits videos together with the VAE under it."""
