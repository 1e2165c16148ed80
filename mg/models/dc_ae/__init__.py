"""Open-Sora 2.0's deep-compression video autoencoder, Video DC-AE."""
