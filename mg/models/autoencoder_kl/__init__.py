"""Stable Diffusion's image autoencoder."""
