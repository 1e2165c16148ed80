"""A run and what it writes: checkpoints, log, curves, guards, lock, signals, trackers."""
