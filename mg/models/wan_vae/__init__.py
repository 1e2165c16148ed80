"""Wan's video autoencoders."""
