"""The terms of the training loss, one per file; each says what it is averaged over."""
