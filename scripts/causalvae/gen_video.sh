#!/usr/bin/env bash
# Reconstruct videos with the flags of Open-Sora-Plan's gen_video.sh, through `mg reconstruct`:
#   bash scripts/causalvae/gen_video.sh --ckpt FOLDER --real_video_dir A --generated_video_dir B \
#       --num_frames 17 --resolution 256 --crop_size 256
# The videos are written to B/clips, where eval.sh finds them if it is given B.
# Any setting of scripts/inference_vae.py can be added.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" \
    -m mg.commands.open_sora_plan_flags gen_video "$@"
