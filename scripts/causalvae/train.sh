#!/usr/bin/env bash
# Train a CausalVideoVAE with the flags of Open-Sora-Plan's train.sh, through `mg train-vae`:
#   bash scripts/causalvae/train.sh --model_config config.json --video_path videos \
#       --resolution 256 --num_frames 17 --sample_rate 1 --disc_start 2000 --disc_weight 0.5 \
#       --kl_weight 1e-6 --perceptual_weight 1.0 --ema
# Any setting of scripts/train_vae.py can be added. docs/vae.md says what the flags are here.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" \
    -m mg.commands.open_sora_plan_flags train "$@"
