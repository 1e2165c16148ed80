"""Generate videos from prompts: scripts/generate.py, under the name that demos give it.

python scripts/generate_video.py --prompt "a red circle moving left on a black background" \
    --output red_circle.mp4
"""

from generate import main, run_main

if __name__ == "__main__":
    run_main(main)
