"""Every setting of a training run of a denoiser, checked before any work."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mg.data.buckets import Bucket
from mg.models.denoiser_config import DenoiserConfig, TextInput
from mg.models.families import DenoiserFamily, denoiser_family
from mg.pipelines.generator_defaults import dropped_conditions
from mg.training.denoiser.condition_settings import ConditionSettings
from mg.training.denoiser.objective_settings import DenoiserLossSettings, ObjectiveSettings
from mg.training.optimizers.plateau import PlateauSettings
from mg.training.setting_checks import check_types, require
from mg.training.settings import MAX_WORKERS, RunSettings
from mg.weights.lora_file import LORA_PARAMETERS

__all__ = [
    "ConditionSettings",
    "DenoiserLossSettings",
    "DenoiserSettings",
    "FlowValidationSettings",
    "LatentDataSettings",
    "LoraSettings",
    "ObjectiveSettings",
    "SampleVideoSettings",
    "SamplingSettings",
    "TextSettings",
    "TrainDenoiserConfig",
]


DEFAULT_FAMILY = "movie_gen"


@dataclasses.dataclass(frozen=True)
class DenoiserSettings:
    """What the section `model` of a run says: which network, and how it trains.

    Attributes:
        family: the network's family.
        fields: those of the family's config that are set; what the latents and the text encoders
            decide (channels, widths of text) is not among them.
        recompute_every: compute every n-th layer again in the backward pass: less memory, more
            time; 1 is all layers, 0 none.
    """

    family: DenoiserFamily
    fields: Mapping[str, Any]
    recompute_every: int

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "DenoiserSettings":
        """Return what the section says: `family`, `recompute_every`, fields of the family's config.

        null is the same as a field that is not there.

        Raises:
            ValueError: an unknown family, or fields that no network can be built from.
        """
        fields = {name: value for name, value in mapping.items() if value is not None}
        decided = sorted({"text_encoders", "latent_channels", "condition_channels"} & set(fields))
        require(
            not decided,
            f"model.{decided[0] if decided else ''} is decided by the latents, the text encoders "
            "and the conditions; leave it out",
        )
        every = fields.pop("recompute_every", 0)
        require(
            type(every) is int and every >= 0,
            f"model.recompute_every={every!r}; expected 0 (none), 1, 2, ...",
        )
        try:
            family = denoiser_family(fields.pop("family", DEFAULT_FAMILY))
        except ValueError as error:
            raise ValueError(f"model: {error}") from error
        settings = cls(family, {**family.default_fields, **fields}, every)
        settings.config()
        return settings

    def config(
        self,
        *,
        text_encoders: Sequence[TextInput] | None = None,
        latent_channels: int | None = None,
        condition_channels: int = 0,
        sizes: Mapping[str, Any] | None = None,
    ) -> DenoiserConfig:
        """Return the network's config; None leaves what the fields and the preset have.

        Args:
            text_encoders: what it is conditioned on.
            latent_channels: of the latents.
            condition_channels: of the conditions beside the latent.
            sizes: of what it is trained on, by the names of a family's config; those hold that the
                family has and the fields do not set.

        Raises:
            ValueError: an unknown preset, or fields that no network can be built from.
        """
        given = {"text_encoders": text_encoders, "latent_channels": latent_channels}
        given = {name: value for name, value in given.items() if value is not None}
        if condition_channels:
            given["condition_channels"] = condition_channels
        try:
            config = self.family.read_config({**self.fields, **given})
            known = {field.name for field in dataclasses.fields(config)} - set(self.fields)
            left = {name: size for name, size in (sizes or {}).items() if name in known}
            return dataclasses.replace(config, **left) if left else config
        except ValueError as error:
            raise ValueError(f"model: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDataSettings:
    """Which latents make a batch.

    Args:
        buckets: sizes of latents to use, FRAMESxHEIGHTxWIDTH in latent frames and pixels; null for
            all sizes that there are.
        batch_sizes: samples per device and step of single buckets, such as {"1x32x32": 10}; the
            others have `batch_size`.
        image_ratio: batches of images for each batch of videos; null draws each image as often as
            each video.
        scaling_factor, shift_factor: the network sees scaling_factor * z + shift_factor, which
            should have mean 0 and standard deviation 1; null takes what the autoencoder's config
            states. The exported generator gets these.
        num_workers: processes that read; 0 reads in the training process.
    """

    buckets: list[str] | None = None
    batch_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    image_ratio: float | None = None
    scaling_factor: float | None = None
    shift_factor: float | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        check_types(self, "data.")
        require(
            0 <= self.num_workers <= MAX_WORKERS,
            f"data.num_workers={self.num_workers}; expected 0 to {MAX_WORKERS}",
        )
        require(
            self.scaling_factor is None or self.scaling_factor > 0,
            f"data.scaling_factor={self.scaling_factor}; expected more than 0, or null",
        )
        require(self.buckets != [], "data.buckets=[] leaves no latent; null takes all sizes")
        self.parsed_buckets()
        self.parsed_batch_sizes()

    def parsed_buckets(self) -> list[Bucket] | None:
        """Return the sizes to use; None for all."""
        return None if self.buckets is None else [Bucket.parse(text) for text in self.buckets]

    def parsed_batch_sizes(self) -> dict[Bucket, int]:
        """Return the batch sizes by bucket."""
        return {Bucket.parse(text): size for text, size in self.batch_sizes.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How captions reach the network.

    Args:
        encoders: byte, word or text (no weights needed; one token per byte, per word, or in all),
            t5:FOLDER (UL2 too), byt5:FOLDER, clip:FOLDER, llama:FOLDER.
        cache_folder: embeddings that mg encode-text made; null embeds while training.
        dropout: share of the samples that are trained without their text, which guidance needs.
        fps_prefix: write the frame rate before each caption, as in "FPS-16 ...".
        truncate: cut captions that are too long for an encoder, instead of refusing them.
    """

    encoders: list[str] = dataclasses.field(default_factory=lambda: ["word"])
    cache_folder: str | None = None
    dropout: float = 0.1
    fps_prefix: bool = False
    truncate: bool = False

    def __post_init__(self) -> None:
        check_types(self, "text.")
        require(bool(self.encoders), "text.encoders=[]; expected at least one, such as word")
        require(0 <= self.dropout < 1, f"text.dropout={self.dropout}; expected 0 to below 1")
        require(
            not self.truncate or self.cache_folder is None,
            "text.truncate has no effect with text.cache_folder; give --truncate to mg encode-text",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Train low-rank maps beside the network's linear maps, and nothing else.

    Args:
        rank: rank of the maps; 4 to 64 are usual.
        alpha: alpha / rank is the factor on what they add; null for the rank, a factor of 1.
        targets: patterns of the linear maps' names, such as "*.self_attention.query"; null for
            those of attention and feed-forward layers.
    """

    rank: int = 8
    alpha: float | None = None
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        check_types(self, "lora.")
        require(self.rank >= 1, f"lora.rank={self.rank}; expected 1 or more")
        require(
            self.alpha is None or self.alpha > 0,
            f"lora.alpha={self.alpha}; expected more than 0, or null",
        )
        require(self.targets != [], "lora.targets=[] leaves nothing to train; null for the usual")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowValidationSettings:
    """The loss of held-out latents, at fixed times with fixed noise.

    Args:
        csv_path: table of the held-out videos; null for no validation.
        latent_folder: folder of their latents; null for the folder of the training latents.
        first_frame_folder: as conditions.first_frame_folder, for the held-out videos; null for that
            of the training videos.
        interval: steps between validations; the first and the last step always validate.
        num_times: times, or steps of a diffusion, that the loss is measured at.
        num_clips: the first so many clips of the table are measured.
        batch_size: clips computed together.
    """

    csv_path: str | None = None
    latent_folder: str | None = None
    first_frame_folder: str | None = None
    interval: int = 1000
    num_times: int = 8
    num_clips: int = 64
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_types(self, "validation.")
        for name in ("interval", "num_times", "num_clips", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"validation.{name}={value}; expected 1 or more")
        require(
            self.latent_folder is None or self.csv_path is not None,
            "validation.latent_folder has no effect without validation.csv_path",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """What the exported generator does unless a request says otherwise.

    Length, size and frame rate are those of the training data.

    Args:
        guidance: weight of what `guidance_drops` names; 1 turns guidance off.
        guidance_drops: what the branch that guidance pushes away from is without: text, source or
            frames, or several with commas.
        steps: steps of the sampler.
    """

    guidance: float = 7.5
    guidance_drops: str = "text"
    steps: int = 50

    def __post_init__(self) -> None:
        check_types(self, "sampling.")
        require(self.guidance >= 0, f"sampling.guidance={self.guidance}; expected 0 or more")
        require(self.steps >= 1, f"sampling.steps={self.steps}; expected 1 or more")
        try:
            dropped_conditions(self.guidance_drops)
        except ValueError as error:
            raise ValueError(f"sampling.{error}") from error

    def check_conditions(self, names: Sequence[str]) -> None:
        """Raise ValueError unless `guidance_drops` names text or one of these conditions."""
        idle = set(dropped_conditions(self.guidance_drops)) - {"text", *names}
        require(
            not idle,
            f"sampling.guidance_drops={self.guidance_drops!r}: {', '.join(sorted(idle))} is no "
            f"condition of this run; it has {', '.join(('text', *names))}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleVideoSettings:
    """Videos that are generated with the averaged weights while training, to be looked at.

    Their length, size and frame rate are those of the exported generator.

    Args:
        prompts: one per video. With text.cache_folder their embeddings must be there.
        interval: steps between one set of videos and the next; the last step always makes one.
        steps: steps of the sampler; null takes sampling.steps.
        guidance: weight of the text; null takes sampling.guidance.
        seed: seed of the first video; it rises by one with each further video.
    """

    prompts: list[str]
    interval: int = 1000
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "samples.")
        require(bool(self.prompts), "samples.prompts=[]; expected at least one, or samples=null")
        require(self.interval >= 1, f"samples.interval={self.interval}; expected 1 or more")
        require(
            self.steps is None or self.steps >= 1,
            f"samples.steps={self.steps}; expected 1 or more, or null",
        )
        require(
            self.guidance is None or self.guidance >= 0,
            f"samples.guidance={self.guidance}; expected 0 or more, or null",
        )
        require(0 <= self.seed < 2**63, f"samples.seed={self.seed}; expected 0 to 2^63 - 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDenoiserConfig(RunSettings):
    """Train a denoiser, such as the Movie Gen transformer, on cached latents.

    Args:
        csv_path: table (CSV, JSONL or JSON) of the training videos and their captions.
        latent_folder: folder of their latents, which mg encode made.
        tae: weights of the autoencoder that made the latents.
        pretrained: a generator's folder to start from, such as that of an earlier stage; its
            position tables grow to those of `model`. null starts from random weights.
        model: the network: `family` (movie_gen), fields of that family's config or a `preset` of
            it, and `recompute_every` to compute every n-th layer again in the backward pass, in
            less memory and more time.
        data: which latents make a batch.
        text: how captions reach the network.
        conditions: what it is conditioned on besides text: source videos, known frames.
        objective: what it is trained to predict, of which mixtures of data and noise.
        loss: the error of that which training makes small.
        lora: train a LoRA of the pretrained generator instead of its weights; null for no.
        plateau: when validation lowers the learning rate; null for never.
        validation: held-out latents.
        sampling: defaults of the exported generator.
        samples: videos to look at while training; null for none.
        sequence_parallel: devices that share the tokens of each batch; `batch_size` is that of so
            many together.
    """

    csv_path: str
    latent_folder: str
    tae: str
    pretrained: str | None = None
    model: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"families": "denoisers"}
    )
    data: LatentDataSettings = dataclasses.field(default_factory=LatentDataSettings)
    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    conditions: ConditionSettings = dataclasses.field(default_factory=ConditionSettings)
    objective: ObjectiveSettings = dataclasses.field(default_factory=ObjectiveSettings)
    loss: DenoiserLossSettings = dataclasses.field(default_factory=DenoiserLossSettings)
    lora: LoraSettings | None = None
    plateau: PlateauSettings | None = None
    validation: FlowValidationSettings = dataclasses.field(default_factory=FlowValidationSettings)
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)
    samples: SampleVideoSettings | None = None
    sequence_parallel: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.denoiser()
        require(
            self.sequence_parallel >= 1,
            f"sequence_parallel={self.sequence_parallel}; expected 1 or more",
        )
        require(
            all(not phase.loss for phase in self.phases),
            "phases: `loss` is for the autoencoder's training; a denoiser has one loss in all "
            "phases, which the section loss sets",
        )
        if self.lora is not None:
            self._check_lora()
        require(
            self.zero_stage < 3 or self.mode == "graph",
            "zero_stage=3 works compiled alone: take mode=graph, or zero_stage=2",
        )
        require(
            self.plateau is None or self.validation.csv_path is not None,
            "plateau needs a validation loss to follow; set validation.csv_path",
        )
        self.sampling.check_conditions(self.conditions.visual_draws().conditions.names)

    def _check_lora(self) -> None:
        require(
            self.pretrained is not None,
            "lora needs the generator that it is to change; set pretrained to its folder",
        )
        require(
            self.train in (None, list(LORA_PARAMETERS))
            and all(phase.train is None for phase in self.phases),
            "lora says what trains; leave train out",
        )
        require(self.zero_stage < 3, "lora does not work with zero_stage=3; take 2 or less")

    def denoiser(self) -> DenoiserSettings:
        """Return what `model` says, read and checked."""
        return DenoiserSettings.from_mapping(self.model)

    @property
    def num_ranks_per_batch(self) -> int:
        return self.sequence_parallel
