"""Training an autoencoder: settings, losses, held-out clips, weights before and after."""
