"""Text encoders, and their embeddings cached on disk."""
