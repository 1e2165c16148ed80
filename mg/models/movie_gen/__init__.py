"""Movie Gen's video transformer: velocity of a latent, given the time and text embeddings."""
