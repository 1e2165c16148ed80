"""HunyuanVideo's video transformer (arXiv 2412.03603)."""
