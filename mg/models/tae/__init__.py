"""Movie Gen's Temporal Autoencoder."""
