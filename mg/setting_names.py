"""Names of settings: one name per thing in every command, and what other projects call them."""

from collections.abc import Iterable, Sequence

from mg.console import one_line
from mg.known_names import nearest

__all__ = ["ONE_NAME", "own_name", "unknown_setting"]

# The name that every command takes for a thing: its config's own, the first that it has.
ONE_NAME = {
    "weights": ("ckpt_path", "checkpoint", "pretrained"),
    "input": ("input", "video_folder"),
    "output": ("output", "output_path", "output_folder"),
    "size": ("image_size", "crop_size", "resolution", "data.size"),
    "num_frames": ("num_frames", "data.sample_n_frames"),
    # Open-Sora's, whose commands are taken as they stand.
    "dataset.data_path": ("input", "video_folder"),
    "save_dir": ("output", "output_path", "output_folder"),
    "grad_checkpoint": ("recompute",),
    "bucket_config": ("data.bucket_config",),
    "model.from_pretrained": ("ckpt_path",),  # of training it is an entry of `model`
}
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")  # of a `dataset.data_path`: it is the csv_path then
# Another project's name for a setting, by its last part: ours, the first that a config has.
SYNONYMS = {
    **{name: ("optim.lr",) for name in ("learning_rate", "lr", "base_lr")},
    **{
        name: ("dtype", "encode_dtype")
        for name in (
            "mixed_precision",
            "mix_precision",
            "precision",
            "fp16",
            "bf16",
            "amp",
            "torch_dtype",
        )
    },
    **{
        name: ("recompute",)
        for name in ("gradient_checkpointing", "activation_checkpointing", "grad_checkpoint")
    },
    **{
        name: ("optim.accumulation_steps",)
        for name in ("gradient_accumulation_steps", "gradient_accumulation", "grad_accum")
    },
    **{
        name: ("steps",)
        for name in ("max_train_steps", "max_steps", "num_train_steps", "iterations", "epochs")
    },
    "num_train_epochs": ("steps",),
    "num_inference_steps": ("steps", "sampling.steps"),
    "sampling_steps": ("steps", "sampling.steps"),
    **{
        name: ("guidance", "sampling.guidance")
        for name in ("guidance_scale", "cfg", "cfg_scale", "cfg_weight")
    },
    **{
        name: ("resolution", "image_size", "data.size")
        for name in ("width", "height", "size", "image_size", "resolution")
    },
    **{
        name: ("num_frames", "data.sample_n_frames")
        for name in ("num_frames", "frames", "video_length", "max_frames")
    },
    **{
        name: ("batch_size",)
        for name in ("batch", "train_batch_size", "per_device_train_batch_size", "bs")
    },
    **{
        name: ("output", "output_path", "output_folder")
        for name in (
            "output",
            "output_path",
            "output_dir",
            "output_folder",
            "save_path",
            "save_dir",
        )
    },
    **{
        name: ("input", "video_folder", "real_video_dir", "csv_path")
        for name in ("input", "video_folder", "video_path", "data_path", "train_data_dir", "videos")
    },
    **{
        name: ("ckpt_path", "checkpoint", "pretrained")
        for name in ("weights", "checkpoint", "model_path", "pretrained_model_name_or_path", "vae")
    },
    "generator": ("seed", "checkpoint"),
    "max_grad_norm": ("optim.clip_grad_norm",),
    "adam_beta1": ("optim.betas",),
    "adam_beta2": ("optim.betas",),
    "lr_scheduler": ("optim.lr_schedule",),
    "lr_warmup_steps": ("optim.warmup_steps",),
    "use_ema": ("optim.ema_decay",),
    "checkpointing_steps": ("checkpoint_interval",),
    "save_steps": ("checkpoint_interval",),
    "logging_steps": ("log_interval",),
    "validation_steps": ("validation.interval",),
    "resume_from_checkpoint": ("resume",),
    "enable_tiling": ("enable_tile", "tiling"),
    "use_tile": ("enable_tile", "tiling"),
    "dataloader_num_workers": ("data.num_workers",),
    "report_to": ("trackers",),
    "wandb": ("trackers",),
    "lpips": ("loss.perceptual_loss_weight",),
    "lpips_weight": ("loss.perceptual_loss_weight",),
    "kl_weight": ("loss.kl_loss_weight",),
}


def own_name(name: str, known: Iterable[str], value: str = "") -> str:
    """Return a config's own name of a setting that is given by its one name, else the name.

    Args:
        name: as given, dotted; hyphens stand for underscores.
        known: the names of all settings.
        value: that it is given; of data it tells a table from a folder.
    """
    known, plain = set(known), name.replace("-", "_")
    if plain in known:
        return plain
    meant = ONE_NAME.get(plain, ())
    if plain == "dataset.data_path" and value.lower().endswith(TABLE_SUFFIXES):
        meant = ("csv_path", *meant)
    return next((ours for ours in meant if ours in known), name)


def unknown_setting(name: str, known: Sequence[str]) -> str:
    """Return the message about a setting that there is not: with the right one, if one is meant.

    Args:
        name: as given, dotted.
        known: the names of all settings.
    """
    meant = _meant(name, known)
    hint = f"did you mean {meant!r}?" if meant else "--help-all lists the settings"
    return f"unknown setting {one_line(name)!r}; {hint}"


def _meant(name: str, known: Sequence[str]) -> str | None:
    last = name.rsplit(".", 1)[-1]
    for ours in SYNONYMS.get(last, ()):
        if ours in known:
            return ours
    by_last = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    if last in by_last:  # the right name in the wrong section
        return by_last[last]
    near = nearest(name, known, cutoff=0.7)
    if near is not None:
        return near
    near = nearest(last, by_last, cutoff=0.7)
    return None if near is None else by_last[near]
