"""Training a denoiser on latents: settings, data, flow loss, validation, sample videos."""
