"""Train a video generator on cached latents: scripts/train.py, under the name that demos give it.

python scripts/train_video.py --config configs/video/train/cogvideox.yaml
"""

from train import main, run_main

if __name__ == "__main__":
    run_main(main)
