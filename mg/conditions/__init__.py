"""What a generator is conditioned on: text, and what is to come of images and video."""
