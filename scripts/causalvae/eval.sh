#!/usr/bin/env bash
# Measure generated videos against the originals with the call of Open-Sora-Plan's eval.sh, through
# `mg evaluate`; flolpips also needs --pwcnet_path:
#   bash scripts/causalvae/eval.sh --real_video_dir A --generated_video_dir B --metric ssim
# Any setting of scripts/evaluate.py can be added or overridden but --sample_fps: it had no effect
# in the original, and has none here.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" \
    -m mg.commands.open_sora_plan_flags eval \
    --protocol open_sora_plan \
    --batch_size 2 \
    --real_video_dir "${REAL_VIDEO_DIR:-../test_eval/release/origin}" \
    --generated_video_dir "${GENERATED_VIDEO_DIR:-../test_eval/release}" \
    --crop_size 256 \
    --resolution 256 \
    --num_frames 17 \
    --sample_rate 1 \
    --subset_size 100 \
    --metric psnr,ssim,lpips \
    "$@"
