"""A family of autoencoders as small as it gets: blocks of 2x2 pixels, one layer each way."""
