"""CogVideoX's video autoencoder."""
