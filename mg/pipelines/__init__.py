"""What a user does in one call: encode, decode, reconstruct."""
