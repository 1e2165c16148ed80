"""Open-Sora-Plan's causal video autoencoder, CausalVideoVAE."""
