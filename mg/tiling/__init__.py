"""Overlapping tiles around any autoencoder: sizes, where they lie, how they are blended."""
