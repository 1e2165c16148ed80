"""Which families of networks there are. A new one costs its folder and a line here.

There are two kinds: autoencoders and denoisers.

A folder `mg/models/NAME/` has `config.py`, the network, and `family.py` with a record `FAMILY` that
says all that the rest of the house needs to know of it. Nothing here imports MindSpore.
"""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.file_names import WEIGHTS_FILE
from mg.known_names import check_known
from mg.latent_spec import LatentSpec
from mg.models.denoiser_config import DenoiserConfig

if TYPE_CHECKING:
    from mg.models.autoencoder import Autoencoder, AutoencoderSettings
    from mg.models.denoiser import Denoiser

__all__ = [
    "AUTOENCODERS",
    "DENOISERS",
    "AutoencoderFamily",
    "DenoiserFamily",
    "autoencoder_families",
    "autoencoder_family",
    "autoencoder_of_class",
    "built_shapes",
    "denoiser_family",
    "denoiser_of_class",
    "same_size",
    "stated_class",
    "with_conditions",
]

# Family -> the package with its record. Checkpoints are recognised in this order.
AUTOENCODERS = {
    "tae": "mg.models.tae",
    "opensora": "mg.models.opensora_vae",
    "cogvideox": "mg.models.cogvideox_vae",
    "hunyuan": "mg.models.hunyuan_vae",
    "wan": "mg.models.wan_vae",
    "causal_vae": "mg.models.causal_vae",
    "dc_ae": "mg.models.dc_ae",
    "sd": "mg.models.autoencoder_kl",
}
DENOISERS = {
    "movie_gen": "mg.models.movie_gen",
    "cogvideox": "mg.models.cogvideox_transformer",
    "hunyuan": "mg.models.hunyuan_transformer",
    "unet": "mg.models.unet3d",
}

Shapes = Mapping[str, tuple[int, ...]]
Tensors = Mapping[str, np.ndarray]
Inflate = Callable[
    [Tensors, Mapping[str, Any] | None, Mapping[str, Any], str],
    tuple[dict[str, np.ndarray], dict[str, Any]],
]


@dataclasses.dataclass(frozen=True)
class AutoencoderFamily:
    """What the house knows of a family of autoencoders.

    Attributes:
        name: the key in `AUTOENCODERS`.
        class_names: `_class_name` in the config.json; the first is what is written.
        network: module and class of the network, "package.module:Class"; its constructor takes the
            config, and the options of `mg.models.autoencoder.Autoencoder` by name.
        from_fields: from the fields of a config to the config; for all others it is `read_config`.
        is_own: whether tensors with these names and shapes are of the family.
        complete: from the fields of a checkpoint's config.json (None if there is none) and its
            tensors to all fields. What neither tells is assumed, and a warning names it.
        description: of the checkpoints, in a few words.
        temporal: patterns of the names of the parameters that work along time.
        weights_file: name of the weights beside config.json.
        starts_from: other families whose weights can be inflated into it.
        inflate: from an image VAE's tensors, the fields of a config to fit (None takes what the
            tensors suggest), what the image VAE's config.json states and a method to tensors and
            fields of this family; None where `mg.models.reading` knows how.
        parameter_shapes: of the network of a config, where they are known without building it.
        rescaled: from a config and a spec to the config that states the spec's scale, where the
            config's own fields can.
        stored_spec: from a config and the network's tensors to the spec, where the tensors hold
            the latents' scale; it counts more than the config's.
    """

    name: str
    class_names: tuple[str, ...]
    network: str
    from_fields: Callable[[Mapping[str, Any]], "AutoencoderSettings"]
    is_own: Callable[[Shapes], bool]
    complete: Callable[[Mapping[str, Any] | None, Tensors], dict[str, Any]]
    description: str
    temporal: tuple[str, ...] = ()
    weights_file: str = WEIGHTS_FILE
    starts_from: tuple[str, ...] = ()
    inflate: Inflate | None = None
    parameter_shapes: Callable[[Any], Shapes] | None = None
    rescaled: Callable[[Any, LatentSpec], Any] | None = None
    stored_spec: Callable[[Any, Tensors], LatentSpec] | None = None

    def spec(self, config: "AutoencoderSettings", tensors: Tensors) -> LatentSpec:
        """Return the spec of the latents of a network with these weights."""
        return config.spec if self.stored_spec is None else self.stored_spec(config, tensors)

    def read_config(self, mapping: Mapping[str, Any]) -> "AutoencoderSettings":
        """Return the config of fields, as config.json or the settings of a run have them.

        Raises:
            ValueError: the fields are of another class, or no network can be built from them.
        """
        _check_class(mapping, self.name, self.class_names)
        return self.from_fields(mapping)

    def build(
        self,
        config: "AutoencoderSettings",
        *,
        recompute: bool = False,
        has_values: bool = True,
        **options: Any,
    ) -> "Autoencoder":
        """Return the network of a config, with random weights.

        Args:
            config: the network's config.
            recompute: in training, compute the insides of blocks again in the backward pass
                instead of keeping them: less memory, more time.
            has_values: False leaves the weights without values until `load_tensors` sets them,
                which takes no memory and is quicker by seconds.
            options: of `mg.models.autoencoder.Autoencoder`.
        """
        network = _built(self.network, config, has_values=has_values, **options)
        if recompute:
            network.recompute_blocks()
        return network

    def shapes(self, config: "AutoencoderSettings") -> dict[str, tuple[int, ...]]:
        """Return {tensor name: shape} of the network of a config; allocates nothing."""
        return dict((self.parameter_shapes or built_shapes(self.network))(config))


@dataclasses.dataclass(frozen=True)
class DenoiserFamily:
    """What the house knows of a family of denoisers.

    Attributes:
        name: the key in `DENOISERS`.
        class_name: `_class_name` in the config.json and in the generator's index.
        network: module and class of the network, "package.module:Class"; its constructor takes the
            config, and `dtype`, `recompute_every` and `sequence` by name.
        from_fields: from the fields of a config to the config; for all others it is `read_config`.
        shapes: {tensor name: shape} of the network of a config; allocates nothing.
        default_fields: of the config, where the settings of a run say nothing.
        grow: from the tensors of a network and its config to those of a larger config, where a
            later stage of training may start from an earlier one.
        prediction: what the network predicts, one of `mg.flow.parametrisation.PREDICTIONS`.
        frames_first: whether its published pipeline has latents as (B, T, C, H, W).
        published_configs: from the shapes of tensors, by the network's names, to the configs of the
            published sizes that they may be of; for weights of a first publication, which come
            without config.json.
    """

    name: str
    class_name: str
    network: str
    from_fields: Callable[[Mapping[str, Any]], DenoiserConfig]
    shapes: Callable[[Any], Shapes]
    default_fields: Mapping[str, Any]
    grow: Callable[[Tensors, Any, Any], dict[str, np.ndarray]]
    prediction: str = "velocity"
    frames_first: bool = False
    published_configs: Callable[[Shapes], list[DenoiserConfig]] | None = None

    def read_config(self, mapping: Mapping[str, Any]) -> DenoiserConfig:
        """Return the config of fields, as config.json or the settings of a run have them.

        Raises:
            ValueError: the fields are of another class, or no network can be built from them.
        """
        _check_class(mapping, self.name, (self.class_name,))
        return self.from_fields(mapping)

    def build(self, config: DenoiserConfig, **options: Any) -> "Denoiser":
        """Return the network of a config, with random weights.

        Args:
            config: the network's config.
            options: dtype, recompute_every, sequence.
        """
        return _built(self.network, config, **options)

    def num_parameters(self, config: DenoiserConfig) -> int:
        """Return how many numbers the parameters of a network hold; allocates nothing."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes(config).values())


def autoencoder_family(name: str) -> AutoencoderFamily:
    """Return the record of a family of autoencoders.

    Raises:
        ValueError: an unknown name; the nearest right one is named.
    """
    check_known([name], list(AUTOENCODERS), kind="family", place="of autoencoders")
    return importlib.import_module(f"{AUTOENCODERS[name]}.family").FAMILY


def autoencoder_families() -> list[AutoencoderFamily]:
    """Return the records of all families of autoencoders."""
    return [autoencoder_family(name) for name in AUTOENCODERS]


def autoencoder_of_class(class_name: object) -> AutoencoderFamily:
    """Return the record of the family whose config.json states this class.

    Raises:
        ValueError: no family has it.
    """
    families = {name: family for family in autoencoder_families() for name in family.class_names}
    if not isinstance(class_name, str) or class_name not in families:
        raise ValueError(f"the config is of class {class_name!r}; known are {', '.join(families)}")
    return families[class_name]


def stated_class(fields: Mapping[str, Any]) -> object:
    """Return the class that the fields of a config.json state, whoever wrote it; None for none."""
    architectures = fields.get("architectures")
    first = next(iter(architectures), None) if isinstance(architectures, list | tuple) else None
    return fields.get("_class_name") or first or fields.get("model_type")


def _check_class(fields: object, family: str, class_names: tuple[str, ...]) -> None:
    """Raise ValueError if fields are those of a class that is none of a family's."""
    stated = stated_class(fields) if isinstance(fields, Mapping) else None
    if stated is not None and stated not in class_names:
        raise ValueError(
            f"the config is of class {stated!r}, but the family {family!r} has "
            f"{' or '.join(class_names)}; take the config.json of such a network, or another family"
        )


def denoiser_family(name: str) -> DenoiserFamily:
    """Return the record of a family of denoisers.

    Raises:
        ValueError: an unknown name; the nearest right one is named.
    """
    check_known([name], list(DENOISERS), kind="family", place="of denoisers")
    return importlib.import_module(f"{DENOISERS[name]}.family").FAMILY


def denoiser_of_class(class_name: str) -> DenoiserFamily:
    """Return the record of the family whose config.json states this class.

    Raises:
        ValueError: no family has it.
    """
    families = [denoiser_family(name) for name in DENOISERS]
    for family in families:
        if family.class_name == class_name:
            return family
    known = ", ".join(family.class_name for family in families)
    raise ValueError(f"a denoiser of class {class_name!r} is not known; known are {known}")


def built_shapes(network: str) -> Callable[[Any], Shapes]:
    """Return a function from a config to {tensor name: shape} of a network, built without memory.

    Args:
        network: module and class, "package.module:Class".
    """

    def shapes(config: Any) -> dict[str, tuple[int, ...]]:
        cell = _built(network, config, has_values=False)
        return {name: tuple(parameter.shape) for name, parameter in cell.parameters_and_names()}

    return shapes


def _built(network: str, config: Any, *, has_values: bool = True, **options: Any) -> Any:
    """Return the cell of a class "package.module:Class", with random weights or without values."""
    from mindspore.nn.utils import no_init_parameters

    module, name = network.split(":")
    network_class = getattr(importlib.import_module(module), name)
    with contextlib.nullcontext() if has_values else no_init_parameters():
        return network_class(config, **options)


def with_conditions(
    patch_weight: str,
) -> Callable[[Tensors, Any, Any], dict[str, np.ndarray]]:
    """Return the `grow` of a family that grows in one thing: conditions beside the latent.

    Args:
        patch_weight: name of the weight whose second axis has the channels that go in; those of
            the conditions come last and begin at zero.
    """

    def grow(tensors: Tensors, stored: Any, wanted: Any) -> dict[str, np.ndarray]:
        if stored.condition_channels == 0 and wanted.condition_channels:
            without = dataclasses.replace(wanted, in_channels=wanted.out_channels)
            tensors = same_size(tensors, stored, without)
            weight = tensors[patch_weight]
            num_more = weight.shape[1] // stored.in_channels * wanted.condition_channels
            zeros = np.zeros((len(weight), num_more, *weight.shape[2:]), weight.dtype)
            return {**tensors, patch_weight: np.concatenate([weight, zeros], axis=1)}
        return same_size(tensors, stored, wanted)

    return grow


def same_size(tensors: Tensors, stored: Any, wanted: Any) -> dict[str, np.ndarray]:
    """Return the tensors as they are, for networks that do not grow.

    Raises:
        ValueError: the configs are of different networks; the fields that differ are named.
    """
    here, there = wanted.to_dict(), stored.to_dict()
    differing = [
        f"{name} is {there.get(name)} there and {here[name]} here"
        for name in here
        if here[name] != there.get(name)
    ]
    if differing:
        raise ValueError(f"the weights are of another network: {'; '.join(differing)}")
    return dict(tensors)
