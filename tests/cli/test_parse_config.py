"""YAML files and flags to dataclasses: what is read, and how every mistake is answered."""

import sys
from pathlib import Path

import pytest
import yaml

from build_docs import SETTINGS
from mg.cli import config_to_yaml, parse_config, run_main, save_config
from mg.cli.setting_names import ONE_NAME, is_near
from mg.cli.setting_synonyms import SYNONYMS
from mg.cli.settings_table import settings_of
from mg.commands import COMMANDS, run_command
from mg.commands.train_tae import TrainTAEConfig
from mg.models.tae.config import TAEConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "tae" / "train"
REQUIRED = ["--output_path=out", "--video_folder", "videos"]


def parse(*arguments):
    return parse_config(TrainTAEConfig, [*REQUIRED, *arguments], description="Train.")


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def fault(*arguments):
    """Return the message of the one-line ValueError that the arguments are answered with."""
    with pytest.raises(ValueError) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_flags_files_and_defaults_are_merged_and_later_ones_win(tmp_path):
    path = write(tmp_path, "steps: 7\noptim: {lr: 1e-3, betas: [0.8, 0.9]}\nmodel: {ch: 64}\n")
    config = parse("--steps=3", f"--config={path}", "--optim.lr", "0.5", "--model.num_res_blocks=1")
    assert config.steps == 7 and config.batch_size == 1
    assert config.optim.lr == 0.5 and config.optim.betas == (0.8, 0.9)
    assert config.model == TAEConfig(ch=64, num_res_blocks=1)
    assert parse(f"--config={path}", "--steps=3").steps == 3


@pytest.mark.parametrize(("flag", "value"), [("--resume", True), ("--resume=False", False)])
def test_a_switch_may_stand_without_a_value(flag, value):
    assert parse(flag, "--overwrite").resume is value
    assert parse(flag, "--overwrite").overwrite is True


def test_null_is_none():
    config = parse("--csv_path=null", "--max_minutes=null", "--optim.ema_decay=null")
    assert config.csv_path is config.max_minutes is config.optim.ema_decay is None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("stesp", "steps"),
        ("optim.lrr", "optim.lr"),
        ("optm.lr", "optim.lr"),
        ("model.chh", "model.ch"),
        ("model.ch_mul", "model.ch_mult"),
        ("lr", "optim.lr"),
        ("sample_n_frames", "data.sample_n_frames"),
        ("optim.size", "data.size"),
        ("validation.siz", "validation.size"),  # no guessing from the first letters
    ],
)
def test_a_mistyped_key_names_the_nearest_right_one(tmp_path, wrong, right):
    message = fault(f"--{wrong}=3")
    assert message.startswith(f"unknown setting {wrong!r}; did you mean {right!r}?")
    assert fault(f"--{wrong}", "3") == fault(f"--{wrong}=3")
    tree = 3
    for key in reversed(wrong.split(".")):
        tree = {key: tree}
    path = write(tmp_path, yaml.safe_dump(tree))
    message = fault("--config", str(path))
    assert message.startswith(f"{path}: unknown setting")
    assert wrong.split(".")[0] in message and right.split(".")[0] in message


def test_a_key_like_no_other_points_to_the_list():
    assert fault("--zzzzqqqq=3") == "unknown setting 'zzzzqqqq'; --help-all lists the settings"
    assert "'videos2' belongs to no setting" in fault("videos2")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", "three", "steps: expected int, got three"),
        ("steps", "1.5", "steps: expected int, got 1.5"),
        ("optim.lr", "fast", "optim.lr: expected float, got fast"),
        ("freeze", "decoder,encoder", "freeze: expected list, got decoder,encoder"),
        ("optim.betas", "[0.9]", "optim.betas: Expected a tuple with 2 elements"),
        ("model.ch", "wide", "expected int, got wide"),
        ("model.ch_mult", "[1, 1]", "temporal_downsample_level=(0, 1, 2): expected"),
        ("resume", "maybe", "resume: expected bool, got maybe"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_key(tmp_path, name, value, message):
    assert message in fault(f"--{name}={value}")
    tree = yaml.safe_load(value)
    for key in reversed(name.split(".")):
        tree = {key: tree}
    assert message in fault(f"--config={write(tmp_path, yaml.safe_dump(tree))}")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--dtype=half", "dtype='half'; expected float32, float16 or bfloat16"),
        ("--device=NPU", "device='NPU'; expected one of auto, Ascend, GPU, CPU"),
        ("--mode=fast", "mode='fast'; expected one of graph, pynative"),
        ("--batch_size=0", "batch_size=0; expected 1 or more"),
        ("--optim.lr=-1", "optim.lr=-1.0; expected more than 0"),
        ("--optim.ema_decay=1", "optim.ema_decay=1.0; expected a number between 0 and 1"),
        ("--loss.kl_loss_weight=-1", "loss.kl_loss_weight=-1.0; expected 0 or more"),
        ("--model.dropout=2", "dropout=2.0; expected 0 <= dropout < 1"),
    ],
)
def test_a_value_out_of_range_is_refused_before_any_work(argument, message):
    assert message in fault(argument)


@pytest.mark.parametrize(("steps", "fitting"), [(3, 0), (10, 1), (11, 10)])
def test_a_warm_up_longer_than_the_run_is_shortened_with_one_line(tmp_path, caplog, steps, fitting):
    flags = ["--config=configs/tae/train/demo.yaml", f"--steps={steps}"]
    with caplog.at_level("INFO", "mg"):
        config = parse_config(TrainTAEConfig, flags, description="Train.")
    assert config.optim.warmup_steps == fitting
    told = [f"Warm-up shortened from 10 to {fitting} steps, as the run has {steps}."]
    assert caplog.messages == (told if steps <= 10 else [])

    caplog.clear()
    with caplog.at_level("INFO", "mg"):
        save_config(tmp_path / "config.yaml", config)
        flags = [f"--config={tmp_path / 'config.yaml'}"]
        assert parse_config(TrainTAEConfig, flags, description="Train.") == config
    assert caplog.messages == []


def test_missing_settings_are_named():
    with pytest.raises(ValueError, match="required: output_path"):
        parse_config(TrainTAEConfig, ["--video_folder=v"], description="Train.")
    with pytest.raises(ValueError, match="no data: set video_folder"):
        parse_config(TrainTAEConfig, ["--output_path=o"], description="Train.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [1,", "is not YAML"),
        ("", "holds no settings"),
        ("- 1", "holds no settings"),
        ("data: 3", "data: expected settings below it, got 3"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_told_by_name(tmp_path, text, message):
    path = write(tmp_path, text)
    answer = fault(f"--config={path}")
    assert message in answer and str(path) in answer


def test_a_missing_file_is_told_by_name(tmp_path):
    for arguments in (("--config", "none.yaml"), ("--config=none.yaml",)):
        with pytest.raises(FileNotFoundError, match=r"no such config file: none\.yaml"):
            parse(*arguments)


def test_the_resolved_config_gives_an_equal_one(tmp_path):
    config = parse(
        "--optim.betas=[0.5,0.6]",
        "--model.ch=32",
        "--freeze=[a.*,b]",
        "--data.short_side_range=[256,300]",
        "--pretrained=some: odd 'name'",
        "--loss.kl_loss_weight=1e-7",
    )
    save_config(tmp_path / "config.yaml", config)
    again = parse_config(
        TrainTAEConfig, ["--config", str(tmp_path / "config.yaml")], description="Train."
    )
    assert again == config
    assert yaml.safe_load(config_to_yaml(config))["optim"]["betas"] == [0.5, 0.6]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_understood(path):
    config = parse_config(
        TrainTAEConfig, ["--config", str(path), "--video_folder=videos"], description="Train."
    )
    header = path.read_text(encoding="utf-8").split("\n")
    comments = "\n".join(line for line in header if line.startswith("#"))
    assert "command" in comments and "devices" in comments
    assert str(path.relative_to(CONFIGS.parents[2])) in comments.replace("\\", "/")
    # What the data section says is also what the clip reader takes.
    assert config.data.clip_config().num_source_frames >= 1


@pytest.mark.parametrize(("num_frames", "dtype"), [(16, "float32"), (32, "bfloat16")])
def test_the_published_recipes(num_frames, dtype):
    path = CONFIGS / f"mixed_256x256x{num_frames}.yaml"
    config = parse_config(
        TrainTAEConfig, ["--config", str(path), "--video_folder=videos"], description="Train."
    )
    assert (config.data.sample_n_frames, config.data.size) == (num_frames, 256)
    assert (config.data.mixed_strategy, config.data.mixed_image_ratio) == ("mixed_video_image", 0.2)
    assert config.dtype == dtype and config.model is None
    assert config.pretrained == "models/tae_vae2d.ckpt"
    assert (config.loss.l1_weight, config.loss.perceptual_loss_weight) == (1.0, 1.0)
    assert (config.loss.kl_loss_weight, config.loss.opl_loss_weight) == (1e-6, 0.0)
    assert config.optim.lr == 1e-5 and config.optim.ema_decay is not None


@pytest.mark.parametrize(
    "error", [ValueError("bad value"), FileNotFoundError("no file"), FloatingPointError("nan")]
)
def test_a_users_fault_ends_in_one_line_and_exit_code_1(capsys, monkeypatch, error):
    def main():
        raise error

    monkeypatch.delenv("MG_DEBUG", raising=False)
    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    monkeypatch.setenv("MG_DEBUG", "1")
    with pytest.raises(type(error)):
        run_main(main)


def test_our_own_faults_keep_their_traceback():
    def main():
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError):
        run_main(main)


def test_the_arguments_of_the_process_are_the_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_tae.py", *REQUIRED, "--steps=5"])
    assert parse_config(TrainTAEConfig, description="Train.").steps == 5


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("learning_rate", "optim.lr"),
        ("mixed_precision", "dtype"),
        ("gradient_checkpointing", "recompute"),
        ("gradient_accumulation_steps", "optim.accumulation_steps"),
        ("max_train_steps", "steps"),
        ("loss.lpips", "loss.perceptual_loss_weight"),
        ("width", "data.size"),
        ("frames", "data.sample_n_frames"),
    ],
)
def test_names_of_other_projects_are_answered_with_ours(theirs, ours):
    message = fault(f"--{theirs}=3")
    assert message.startswith(f"unknown setting {theirs!r}; did you mean {ours!r}?")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model.halp", "did you mean 'model.help'?"),
        ("moedl.help", "did you mean 'model.help'?"),
        ("data.hlep", "did you mean 'data.help'?"),
        ("model.fpss", "--help-all lists the settings"),
    ],
)
def test_the_help_of_a_section_is_a_name_too(name, hint):
    assert fault(f"--{name}") == f"unknown setting {name!r}; {hint}"


def test_a_hyphen_is_not_another_name(caplog):
    caplog.set_level("INFO", logger="mg")
    assert fault("--learning-rate=1e-4") == (
        "unknown setting 'learning-rate'; did you mean 'optim.lr'?"
    )
    assert parse("--batch-size=2").batch_size == 2
    assert caplog.messages == []


def test_every_synonym_means_a_setting_of_some_command():
    known = {setting.name for config in SETTINGS.values() for setting in settings_of(config)}
    for name, ours in ONE_NAME.items():
        assert set(ours) <= known, name
    elsewhere = {"config", "num_edits", "num_clips", "num_videos", "lr"}  # of smaller commands
    for synonym in SYNONYMS:
        assert set(synonym.ours) <= known | elsewhere, synonym
        assert {synonym.having, synonym.lacking} <= known | {""}, synonym
        assert synonym.ours or synonym.note, synonym


NO_HINT = "--help-all lists the settings"
EPOCHS = "did you mean 'steps'? steps counts updates; an epoch is"
UPDATES = "did you mean 'sampling.steps'? steps is the number of updates"
HINTS = {
    "train-tae": {
        "ckpt_path": "did you mean 'pretrained'?",
        "vae_path": "did you mean 'pretrained'?",
        "image_height": "did you mean 'data.size'? It is [height, width]",
        "disc_weight": "did you mean 'adversarial.weight'?",
        "latent_channels": "did you mean 'model.z_channels'?",
        "samples": "all clips of the data are used",
        "num_samples": "all clips of the data are used",
        "max_tokens": NO_HINT,
        "chunk_size": NO_HINT,
        "num_inference_steps": NO_HINT,
        "epochs": EPOCHS,
        "max_epochs": EPOCHS,
        "cfg": "did you mean 'config'? It is a YAML file",
        "gpu": "did you mean 'device'?",
        "ema": "did you mean 'optim.ema_decay'?",
        "wandb": "did you mean 'trackers'? It is a list, such as --trackers '[wandb]'",
        "fps": "did you mean 'data.sample_stride'?",
    },
    "train": {
        "num_inference_steps": UPDATES,
        "sampling_steps": UPDATES,
        "epochs": EPOCHS,
        "cfg": "did you mean 'sampling.guidance'?",
        "num_frames": "the length is that of the latents",
        "width": "the size is that of the latents",
        "num_gpus": "`mg launch NUM COMMAND ...` runs a command on several devices",
        "local_rank": "`mg launch NUM COMMAND ...` runs a command on several devices",
        "vae": "did you mean 'tae'?",
    },
    "generate": {
        "kl_weight": NO_HINT,
        "patch_size": NO_HINT,
        "epochs": NO_HINT,
        "force": "did you mean 'overwrite'?",
        "model": "did you mean 'checkpoint'?",
        "num_samples": "did you mean 'prompts_file'? A video is made of each of its lines",
        "num_inference_steps": "did you mean 'steps'?",
        "width": "did you mean 'resolution'? It is [height, width]",
    },
    "reconstruct": {"tile_size": "did you mean 'tiling.height'? With tiling.width"},
    "evaluate": {"ckpt_path": NO_HINT, "image_size": "did you mean 'crop_size'?"},
}


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in HINTS.items() for name in names]
)
def test_no_hint_leads_to_another_meaning(command, name):
    with pytest.raises(ValueError) as caught:
        parse_config(SETTINGS[command], [f"--{name}=3"], description="")
    assert str(caught.value).startswith(f"unknown setting {name!r}; {HINTS[command][name]}")


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("stepps", "steps", True),
        ("stesp", "steps", True),
        ("optm.lr", "optim.lr", True),
        ("batchsize", "batch_size", True),
        ("fps", "eps", False),
        ("force", "source", False),
        ("num_frames", "num_times", False),
        ("tile_size", "image_size", False),
        ("max_tokens", "max_restores", False),
    ],
)
def test_only_slips_of_the_pen_are_near(name, other, expected):
    assert is_near(name, other) is expected


def test_one_name_per_thing_is_taken_by_every_command(caplog):
    caplog.set_level("INFO", logger="mg")
    config = parse("--size=64", "--num_frames=8", "--weights=a.ckpt", "--input", "videos")
    assert config.data.size == 64 and config.data.sample_n_frames == 8
    assert config.pretrained == "a.ckpt" and config.video_folder == "videos"
    assert not caplog.messages


def test_one_name_per_thing_is_taken_in_files_and_others_with_a_notice(tmp_path, caplog):
    caplog.set_level("INFO", logger="mg")
    text = "size: 64\nnum_frames: 8\nweights: a.ckpt\nsteps: 1e3\ndata: {flip: true}\n"
    path = write(tmp_path, text + "dataset: {data_path: clips.csv}\n")
    config = parse(f"--config={path}")
    assert (config.data.size, config.data.sample_n_frames, config.data.flip) == (64, 8, True)
    assert (config.pretrained, config.csv_path, config.steps) == ("a.ckpt", "clips.csv", 1000)
    assert caplog.messages == ["dataset.data_path is taken as csv_path, its name in this command."]
    assert parse("--config", str(path), "--steps", "2e3").steps == 2000
    path = write(tmp_path, "size: 64\ndata: {size: 32}\n")
    assert "size and data.size both stand there" in fault(f"--config={path}")
    assert "steps: expected int" in fault("--steps=1.5e0")


@pytest.mark.parametrize("name", ["size", "data.size"])
def test_a_size_may_be_written_with_a_cross(tmp_path, name):
    assert parse(f"--{name}", "96x160").data.size == (96, 160)
    assert parse(f"--{name}=64X96").data.size == (64, 96)
    path = write(tmp_path, "size: 96x160\n" if name == "size" else "data: {size: 96x160}\n")
    assert parse(f"--config={path}").data.size == (96, 160)


@pytest.mark.parametrize("given", ["big", "96.5", "[96]", "96x"])
def test_what_is_no_size_is_answered_with_one(given):
    message = f"data.size: expected a size such as 96 or [96, 160], got {given}"
    assert fault(f"--data.size={given}") == message


def test_a_list_of_one_text_may_be_that_text(tmp_path):
    config = parse("--freeze", "encoder*", "--train=decoder", "--freeze+=shared")
    assert (config.freeze, config.train) == (["encoder*", "shared"], ["decoder"])
    assert parse("--train=null").train is None
    assert parse(f"--config={write(tmp_path, 'freeze: encoder')}").freeze == ["encoder"]
    assert fault("--freeze=encoder,decoder") == (
        "freeze: expected list, got encoder,decoder; a list is written --freeze '[encoder,decoder]'"
    )


def test_a_command_takes_the_output_names_of_the_others(caplog):
    caplog.set_level("INFO", logger="mg")
    config = parse_config(
        SETTINGS["generate"], ["--prompt=a", "--output_path", "a.mp4"], description=""
    )
    assert config.output == "a.mp4"
    assert caplog.messages == ["output_path is taken as output, its name in this command."]


def test_help_of_families_lists_their_fields(capsys):
    def help_of(command, *argv):
        with pytest.raises(SystemExit):
            parse_config(SETTINGS[command], argv, description="")
        return capsys.readouterr().out

    text = help_of("train-vae", "--model.help")
    assert "families of autoencoders, --model.family: tae, " in text
    assert "fields of dc_ae:" in text and "--model.width_list" in text
    text = help_of("train", "--model.help", "--model.family=cogvideox")
    assert "fields of cogvideox:" in text and "fields of unet:" not in text
    assert "--model.preset {" in text


def test_help_shows_choices_and_what_a_file_sets(capsys, tmp_path):
    path = write(tmp_path, "output_path: there\nsteps: 7\n")
    text = shown(capsys, "--config", str(path), "--help")
    assert "--device {auto,Ascend,GPU,CPU}  (default auto)" in text
    assert "--dtype {float32,float16,bfloat16}  (default float32)" in text
    assert "--steps  (int; default 7)" in text and "--output VALUE" not in text


def test_open_soras_flags_are_taken_as_they_stand():
    config = parse("--dataset.data_path=videos", "--save_dir", "out", "--grad_checkpoint")
    assert (config.video_folder, config.csv_path, config.recompute) == ("videos", None, True)
    assert config.output_path == "out"
    config = parse("--dataset.data_path", "clips.CSV", "--save-dir=there", "--dtype=fp16")
    assert (config.csv_path, config.output_path, config.dtype) == ("clips.CSV", "there", "float16")
    assert fault("--save--dir=x").startswith("unknown setting 'save--dir'")


def shown(capsys, *argv, common=()):
    with pytest.raises(SystemExit) as ended:
        parse_config(TrainTAEConfig, argv, description="Trains.", common=common)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_common_settings_then_all_then_a_section(capsys):
    common = shown(capsys, "--help", common=("steps", "optim.lr"))
    assert "--steps  (int; default 1000)" in common and "--optim.lr " in common
    assert "--seed" not in common and "--help-all shows all" in common
    assert "Trains." in common and "--output VALUE" in common
    everything = shown(capsys, "--help-all", common=("steps",))
    assert all(f"--{setting.name} " in everything for setting in settings_of(TrainTAEConfig))
    section = shown(capsys, "--model.help")
    assert "--model.ch_mult" in section and "--steps" not in section


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if n in SETTINGS])
def test_common_settings_exist(name, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(name, ["--help"])
    assert ended.value.code == 0 and "--device" in capsys.readouterr().out


def test_training_and_validation_sizes_may_be_oblong():
    config = parse("--data.size=[96,160]", "--validation.size=[48,80]", "--model.ch=32")
    assert config.data.height_width == (96, 160) and config.validation.height_width == (48, 80)
    assert config.data.clip_config().height_width == (96, 160)
    assert parse("--data.size=64").data.height_width == (64, 64)
    message = fault("--data.size=[96,100]", "--model.ch=32")
    assert message.startswith("data.size=(96, 100)") and "multiple of 8" in message
    assert "validation.size must be one or two numbers" in fault("--validation.size=0")
