"""Quality of reconstructed frames: PSNR, SSIM and LPIPS, numpy in and numbers out.

Nothing here imports MindSpore before an LPIPS network is asked for.
"""
