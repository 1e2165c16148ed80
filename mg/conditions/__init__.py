"""What a generator is conditioned on: text, a source video, frames that are known.

    condition.py   Condition: what all of them have in common
    text/          text encoders, the cache of their embeddings
    visual.py      latents beside the noisy one: SourceVideo, KnownFrames, both on the channel axis
    frame_draws.py which frames are known in training

Nothing in here but `text/` needs MindSpore.
"""
