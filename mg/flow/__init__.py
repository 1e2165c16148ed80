"""Flow matching (Movie Gen 3.1.2) around any `velocity(latent, t)`: t = 0 is noise, t = 1 data.

Nothing here knows what the network looks like inside.
"""
