"""AdamW inside the compiled step, on one device or shared out over ranks, and its rates."""
