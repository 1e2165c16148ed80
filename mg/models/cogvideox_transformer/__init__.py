"""CogVideoX's video transformer (arXiv 2408.06072), 2b, 5b and 1.5."""
