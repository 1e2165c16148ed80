"""I3D, a network that recognises actions in video; its answers are the features of FVD."""
