"""What other projects call settings: a table of names that are known to mean one of ours.

A name that stands here is answered from the table alone, never with a similar spelling: `fps` is
not `eps`, and `num_inference_steps` not the updates of a training.
"""

from collections.abc import Collection
from typing import NamedTuple

__all__ = ["SYNONYMS", "Synonym", "synonym_of"]

SIZE_NOTE = "It is [height, width], or one number for a square"
EPOCH_NOTE = "steps counts updates; an epoch is the number of clips divided by batch_size"
LAUNCH_NOTE = "`mg launch NUM COMMAND ...` runs a command on several devices, its ranks"


class Synonym(NamedTuple):
    """Names that mean the same.

    Attributes:
        theirs: names, by their last part.
        ours: settings that they mean; the first one that a command has is named.
        note: what differs, or what to do where no setting does it.
        having: a setting that a command must have for this to be meant.
        lacking: a setting that it must not have.
    """

    theirs: str
    ours: tuple[str, ...] = ()
    note: str = ""
    having: str = ""
    lacking: str = ""


WEIGHTS = ("ckpt_path", "checkpoint", "pretrained")
OUTPUTS = ("output", "output_path", "output_folder")
INPUTS = ("input", "video_folder", "latent_folder", "real_video_dir", "csv_path")
SIZES = ("resolution", "image_size", "data.size", "data.resolution")

# Of several that fit a command, the first counts.
SYNONYMS = (
    # Length and rate of a training.
    Synonym("max_train_steps max_steps num_train_steps train_steps iterations num_iterations "
            "max_iters total_steps", ("steps",), having="optim"),
    Synonym("epochs num_epochs max_epochs num_train_epochs train_epochs", ("steps",), EPOCH_NOTE,
            having="optim"),
    Synonym("learning_rate lr base_lr", ("optim.lr", "lr")),
    Synonym("lr_scheduler lr_scheduler_type lr_schedule", ("optim.lr_schedule",)),
    Synonym("lr_warmup_steps warmup_steps warmup num_warmup_steps", ("optim.warmup_steps",)),
    Synonym("max_grad_norm gradient_clip_val gradient_clip grad_clip clip_grad clip_grad_norm",
            ("optim.clip_grad_norm",)),
    Synonym("adam_beta1 adam_beta2 betas", ("optim.betas",)),
    Synonym("adam_weight_decay weight_decay", ("optim.weight_decay",)),
    Synonym("adam_epsilon epsilon", ("optim.eps",)),
    Synonym("optimizer optimiser", ("optim",),
            "Networks train with AdamW; optim.* are its settings"),
    Synonym("gradient_accumulation_steps gradient_accumulation grad_accum accumulate_grad_batches "
            "accumulation_steps", ("optim.accumulation_steps",)),
    Synonym("ema use_ema ema_rate ema_start_step", ("optim.ema_decay",),
            "It is a number such as 0.999; null keeps no average"),
    Synonym("batch train_batch_size per_device_train_batch_size bs", ("batch_size",)),
    Synonym("gradient_checkpointing activation_checkpointing grad_checkpoint "
            "use_gradient_checkpointing use_recompute", ("recompute",)),
    Synonym("gradient_checkpointing activation_checkpointing recompute", (),
            "a field of the network does it: --model.recompute_every 1", having="latent_folder"),
    # Precision, devices.
    Synonym("mixed_precision mix_precision precision fp16 bf16 half amp torch_dtype dtype",
            ("encode_dtype",), "decode_dtype is that of the decoder", having="encode_dtype"),
    Synonym("mixed_precision mix_precision precision fp16 bf16 half amp amp_level torch_dtype",
            ("dtype",)),
    Synonym("gpu use_gpu cuda npu accelerator device_target device_type cpu", ("device",),
            "It is auto, Ascend, GPU or CPU"),
    Synonym("device_id gpu_id gpu_ids", (),
            "the environment variable ASCEND_RT_VISIBLE_DEVICES chooses among the devices"),
    Synonym("num_gpus gpus ngpus n_gpus num_devices devices nproc_per_node num_processes "
            "world_size num_nodes local_rank global_rank node_rank rank_id distributed", (),
            LAUNCH_NOTE),
    Synonym("compile torch_compile graph_mode ms_mode", ("mode",), "It is graph or pynative"),
    Synonym("sp_size sequence_parallel_size", ("sequence_parallel",)),
    # Sampling.
    Synonym("num_inference_steps sampling_steps num_sampling_steps infer_steps num_steps "
            "sample_steps denoising_steps", ("sampling.steps",),
            "steps is the number of updates", having="sampling"),
    Synonym("num_inference_steps sampling_steps num_sampling_steps infer_steps num_steps "
            "sample_steps denoising_steps", ("steps",), lacking="optim"),
    Synonym("guidance_scale cfg cfg_scale cfg_weight text_guidance_scale",
            ("guidance", "sampling.guidance")),
    Synonym("cfg cfg_file config_file config_path yaml", ("config",), "It is a YAML file"),
    Synonym("generator manual_seed", ("seed",)),
    Synonym("scheduler sampler", ("schedule",)),
    Synonym("neg_prompt negative", ("negative_prompt",)),
    Synonym("text caption prompts", ("prompt",), "prompts_file has a prompt on each line",
            lacking="optim"),
    Synonym("num_samples num_videos num_videos_per_prompt num_images_per_prompt samples n_samples",
            ("prompts_file",), "A video is made of each of its lines"),
    Synonym("num_samples num_videos n_samples max_samples",
            ("subset_size", "num_prompts", "num_edits", "num_clips", "num_videos")),
    Synonym("num_samples n_samples max_samples samples num_videos", (),
            "all clips of the data are used; list fewer in csv_path", having="optim"),
    Synonym("video source_video input_video init_video", ("source",)),
    Synonym("image input_image init_image start_image", ("first_frame",)),
    Synonym("denoising_strength denoise noise_strength", ("strength",)),
    Synonym("lora_path lora_weights lora_file adapter", ("lora",), lacking="optim"),
    Synonym("lora_scale lora_multiplier lora_strength", ("lora_weight",)),
    Synonym("lora_rank network_dim", ("lora.rank",)),
    Synonym("lora_alpha network_alpha", ("lora.alpha",)),
    Synonym("save_latents", ("keep_latents",)),
    # Sizes and lengths.
    Synonym("width height size image_size image_width image_height img_size sample_size "
            "frame_size", ("crop_size",), "It is the side of the square cut from the centre; "
            "resolution is the shorter side before", having="real_video_dir"),
    Synonym("width height size image_size resolution image_width image_height image_res img_size "
            "sample_size crop_size video_size frame_size", SIZES, SIZE_NOTE),
    Synonym("width height size image_size resolution image_width image_height sample_size "
            "crop_size", (), "the size is that of the latents, which mg encode --image_size or "
            "--buckets sets", having="latent_folder"),
    Synonym("num_frames frames video_length max_frames n_frames sample_frames clip_length "
            "sequence_length sample_n_frames",
            ("num_frames", "data.sample_n_frames", "max_frames")),
    Synonym("num_frames frames video_length max_frames n_frames sample_n_frames", (),
            "the length is that of the latents, which mg encode --buckets or --max_frames sets",
            having="latent_folder"),
    Synonym("stride frame_interval frame_skip sample_interval temporal_stride frame_stride",
            ("data.sample_stride", "sample_stride", "sample_rate")),
    Synonym("fps frame_rate target_fps", ("sample_fps", "fps")),
    Synonym("fps frame_rate target_fps", ("data.sample_stride", "sample_stride"),
            "It takes every n-th frame; frames are not resampled to a rate"),
    Synonym("enable_tiling use_tile vae_tiling use_tiling tile", ("enable_tile", "tiling")),
    Synonym("tile_size tile_height tile_width tile_sample_min_size", ("tiling.height",),
            "With tiling.width it is the size of a tile in pixels"),
    Synonym("chunk_size num_frames_per_chunk tile_frames", ("tiling.frames",)),
    Synonym("tile_overlap overlap", ("tiling.overlap_pixels",)),
    # Files.
    Synonym("output output_path output_dir output_folder save_path save_dir out work_dir logdir "
            "log_dir outdir result_dir", OUTPUTS),
    Synonym("video_path", ("source",), lacking="optim"),
    Synonym("input input_path input_dir video_folder video_path video_dir data_path data_dir "
            "data_root train_data_dir dataset dataset_path instance_data_dir videos data_folder",
            INPUTS),
    Synonym("metadata annotation annotations data_file train_file csv csv_file meta_path",
            ("csv_path",)),
    Synonym("val_data val_data_dir validation_data val_folder eval_data",
            ("validation.video_folder", "validation.latent_folder", "validation.csv_path")),
    Synonym("vae vae_path vae_ckpt vae_checkpoint autoencoder ae_path first_stage_path tae_path",
            ("tae", *WEIGHTS)),
    Synonym("weights weight checkpoint checkpoint_path ckpt ckpt_path model_path model_id "
            "model_name pretrained pretrained_path pretrained_model pretrained_model_path "
            "pretrained_model_name_or_path pretrained_weights init_from load_from model_dir",
            WEIGHTS),
    Synonym("model", WEIGHTS, lacking="optim"),
    Synonym("force force_overwrite clobber replace exist_ok", ("overwrite",)),
    # Networks.
    Synonym("latent_channels latent_dim z_dim z_channels", ("model.z_channels",)),
    Synonym("latent_channels latent_dim z_dim z_channels", (),
            "--model.help lists the fields of each family", having="model"),
    Synonym("patch_size", ("model.patch_size",)),
    Synonym("max_tokens max_length max_sequence_length text_len", ("text.encoders", "encoder"),
            'It stands behind the name: --text.encoders \'["word,max_tokens=64"]\'',
            having="text"),
    Synonym("max_tokens max_length max_sequence_length text_len", ("encoder",),
            "It stands behind the name: --encoder word,max_tokens=64"),
    # Losses.
    Synonym("lpips lpips_weight perceptual_weight perceptual_loss_weight perceptual",
            ("loss.perceptual_loss_weight", "metric", "lpips_path")),
    Synonym("kl_weight kl kl_loss_weight beta_kl", ("loss.kl_loss_weight",)),
    Synonym("l1 rec_weight recon_weight reconstruction_weight pixel_weight", ("loss.l1_weight",)),
    Synonym("mse l2_weight", ("loss.mse_weight",)),
    Synonym("disc_weight adv_weight gan_weight discriminator_weight adversarial_weight "
            "disc_factor", ("adversarial.weight",)),
    Synonym("disc_start discriminator_start gan_start", ("adversarial.start_step",)),
    Synonym("disc_lr discriminator_lr", ("adversarial.lr",)),
    # What a run writes and when.
    Synonym("checkpointing_steps save_steps save_interval save_every save_freq ckpt_interval "
            "ckpt_save_interval", ("checkpoint_interval",)),
    Synonym("checkpoints_total_limit save_total_limit keep_last max_checkpoints",
            ("keep_checkpoints",)),
    Synonym("logging_steps log_every log_freq print_freq", ("log_interval",)),
    Synonym("validation_steps eval_steps eval_interval eval_every val_interval val_check_interval",
            ("validation.interval",)),
    Synonym("resume_from_checkpoint resume_from resume_path auto_resume", ("resume",),
            "It is true or false: the run in output_path goes on"),
    Synonym("report_to logger wandb use_wandb wandb_project tracker swanlab trackio log_with",
            ("trackers",), "It is a list, such as --trackers '[wandb]'"),
    Synonym("dataloader_num_workers workers num_workers num_parallel_workers",
            ("data.num_workers",)),
    Synonym("verbose debug", (), "the environment variable MG_DEBUG=1 shows where an error arose"),
)  # fmt: skip


def synonym_of(name: str, known: Collection[str]) -> Synonym | None:
    """Return what a name means among the settings of a command.

    The answer's `ours` are the settings that the command has, none if only its note helps. A name
    that stands in the table and means nothing to the command gives a `Synonym` without either;
    None is for names that are not in the table.

    Args:
        name: the last part of a setting's name.
        known: the names of all settings of the command.
    """
    found = [synonym for synonym in SYNONYMS if name in synonym.theirs.split()]
    for synonym in found:
        fits = not synonym.having or synonym.having in known
        if not fits or (synonym.lacking and synonym.lacking in known):
            continue
        ours = tuple(setting for setting in synonym.ours if setting in known)
        if ours or not synonym.ours:
            return synonym._replace(ours=ours)
    return Synonym(name) if found else None
