"""PWC-Net, a network that estimates optical flow; FloLPIPS weighs by it."""
