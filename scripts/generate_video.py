"""`mg generate` under the name that demos of video transformers give it.

python scripts/generate_video.py --prompt "a red circle moving left on a black background" \
    --output red_circle.mp4
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mg.commands import run_command

if __name__ == "__main__":
    run_command("generate")
