"""Every setting of a training run of the Movie Gen transformer, checked before any work."""

import dataclasses
from collections.abc import Sequence

from mg.data.buckets import Bucket
from mg.models.movie_gen.config import MovieGenConfig, TextInput
from mg.training.plateau import PlateauSettings
from mg.training.setting_checks import check_types, require
from mg.training.settings import MAX_WORKERS, RunSettings

__all__ = [
    "FlowValidationSettings",
    "LatentDataSettings",
    "SampleVideoSettings",
    "SamplingSettings",
    "TextSettings",
    "TrainMovieGenConfig",
    "TransformerSettings",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """The network: a preset, and what is different from it. null takes what the preset has.

    What the latents and the text encoders decide (channels, widths of text) is not set here.

    Args:
        preset: tiny, 100m, 1b, 5b or 30b.
        num_layers: transformer blocks.
        dim: width of a token.
        ffn_dim: inner width of the feed-forward layers.
        num_heads: of the attention.
        position_table: rows of the learned position tables, in tokens: frames, height, width.
        qk_norm: RMSNorm of each head's queries and keys (not in the paper).
        rope: rotary positions on top of the learned ones (not in the paper).
        recompute_every: compute every n-th layer again in the backward pass: less memory, more
            time; 1 is all layers, 0 none.
    """

    preset: str = "tiny"
    num_layers: int | None = None
    dim: int | None = None
    ffn_dim: int | None = None
    num_heads: int | None = None
    position_table: tuple[int, int, int] | None = None
    qk_norm: bool | None = None
    rope: bool | None = None
    recompute_every: int = 0

    def __post_init__(self) -> None:
        check_types(self, "model.")
        require(
            self.recompute_every >= 0,
            f"model.recompute_every={self.recompute_every}; expected 0 (none), 1, 2, ...",
        )
        self.config()

    def config(
        self,
        *,
        text_encoders: Sequence[TextInput] | None = None,
        latent_channels: int | None = None,
    ) -> MovieGenConfig:
        """Return the network's config; None leaves what the preset has.

        Raises:
            ValueError: an unknown preset, or fields that no network can be built from.
        """
        given = {**dataclasses.asdict(self), "latent_channels": latent_channels}
        given["text_encoders"] = None if text_encoders is None else tuple(text_encoders)
        del given["recompute_every"]
        try:
            return MovieGenConfig.from_mapping(
                {name: value for name, value in given.items() if value is not None}
            )
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
        encoders: byte or word (no weights needed), t5:FOLDER (UL2 too), byt5:FOLDER, clip:FOLDER.
        cache_folder: embeddings that scripts/encode_text.py made; null embeds while training.
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
            "text.truncate has no effect with text.cache_folder; give --truncate to "
            "scripts/encode_text.py",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowValidationSettings:
    """The flow loss of held-out latents, at fixed times with fixed noise.

    Args:
        csv_path: table of the held-out videos; null for no validation.
        latent_folder: of their latents; null for the folder of the training latents.
        interval: steps between validations; the first and the last step always validate.
        num_times: times t in [0, 1] that the loss is measured at.
        num_clips: the first so many clips of the table are measured.
        batch_size: clips computed together.
    """

    csv_path: str | None = None
    latent_folder: str | None = None
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
    """What the exported generator does unless it is told otherwise.

    Length, size and frame rate are those of the training data.

    Args:
        guidance: weight of the text; 1 turns guidance off.
        steps: of the sampler.
    """

    guidance: float = 7.5
    steps: int = 50

    def __post_init__(self) -> None:
        check_types(self, "sampling.")
        require(self.guidance >= 0, f"sampling.guidance={self.guidance}; expected 0 or more")
        require(self.steps >= 1, f"sampling.steps={self.steps}; expected 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleVideoSettings:
    """Videos that are generated with the averaged weights while training, to be looked at.

    Their length, size and frame rate are those of the exported generator.

    Args:
        prompts: one per video. With text.cache_folder their embeddings must be there.
        interval: steps between one set of videos and the next; the last step always makes one.
        steps: of the sampler; null takes sampling.steps.
        guidance: weight of the text; null takes sampling.guidance.
        seed: of the first video; each further one has a number more.
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
class TrainMovieGenConfig(RunSettings):
    """Train the Movie Gen transformer on cached latents.

    Args:
        csv_path: table (CSV, JSONL or JSON) of the training videos and their captions.
        latent_folder: of their latents, which scripts/encode.py made.
        tae: weights of the autoencoder that made the latents.
        pretrained: a generator's folder to start from, such as that of an earlier stage; its
            position tables grow to those of `model`. null starts from random weights.
        model: the network.
        data: which latents make a batch.
        text: how captions reach the network.
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
    model: TransformerSettings = dataclasses.field(default_factory=TransformerSettings)
    data: LatentDataSettings = dataclasses.field(default_factory=LatentDataSettings)
    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    plateau: PlateauSettings | None = None
    validation: FlowValidationSettings = dataclasses.field(default_factory=FlowValidationSettings)
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)
    samples: SampleVideoSettings | None = None
    sequence_parallel: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.sequence_parallel >= 1,
            f"sequence_parallel={self.sequence_parallel}; expected 1 or more",
        )
        require(
            all(not phase.loss for phase in self.phases),
            "phases: `loss` is for the autoencoder's training; the flow loss has no settings",
        )
        require(
            self.plateau is None or self.validation.csv_path is not None,
            "plateau needs a validation loss to follow; set validation.csv_path",
        )

    @property
    def num_ranks_per_batch(self) -> int:
        return self.sequence_parallel
