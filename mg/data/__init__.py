"""Videos and images on disk to batches of clips (numpy only: no MindSpore is imported here)."""
