"""The temporal half of Open-Sora's video VAE v1.2."""
