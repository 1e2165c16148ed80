"""An autoencoder before it is built: family, config and weights. No MindSpore is imported."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mg.latent_spec import LatentSpec
from mg.models.families import AutoencoderFamily, autoencoder_family

if TYPE_CHECKING:
    from typing_extensions import Self

    from mg.models.autoencoder import Autoencoder, AutoencoderSettings

__all__ = ["AutoencoderParts"]


@dataclasses.dataclass(frozen=True)
class AutoencoderParts:
    """An autoencoder before it is built.

    Attributes:
        family: its record.
        config: the network's config.
        tensors: by the network's names.
        spec: of the latents, with the scale that a generator sees them at.
    """

    family: AutoencoderFamily
    config: "AutoencoderSettings"
    tensors: Mapping[str, np.ndarray]
    spec: LatentSpec

    @classmethod
    def of_network(cls, network: "Autoencoder") -> "Self":
        """Return the parts of a network that is built; the weights are copies."""
        family = autoencoder_family(network.family)
        return cls(family, network.config, network.tensors(), network.spec)

    def scaled_by(self, spec: LatentSpec) -> "Self":
        """Return the parts with the scale of another spec."""
        config = self.config
        if self.family.rescaled is not None:
            config = self.family.rescaled(config, spec)
        scaled = dataclasses.replace(self.spec, factor=spec.factor, offset=spec.offset)
        return dataclasses.replace(self, config=config, spec=scaled)

    def build(self, **options: Any) -> "Autoencoder":
        """Return the network, for inference; its posterior's mean is what it encodes to.

        Args:
            options: of `mg.models.autoencoder.Autoencoder`.

        Raises:
            ValueError: the weights do not fit the config, or a precision that the device lacks.
        """
        network = self.family.build(self.config, has_values=False, **options)
        network.load_tensors(self.tensors)
        network.spec = self.spec  # of `scaled_by`, or of a generator; else the network's own
        network.sample_deterministic = True
        network.set_train(False)
        return network
