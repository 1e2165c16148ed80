"""AdamW inside the compiled step, on one device or divided among ranks, and its rates."""
