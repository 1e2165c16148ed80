"""`mg train` under the name that demos of video transformers give it.

python scripts/train_video.py --config configs/video/train/cogvideox.yaml
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.commands import run_command

if __name__ == "__main__":
    run_command("train")
