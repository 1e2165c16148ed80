"""The fields that a setting such as `model` takes: those of each family of networks."""

import importlib
import typing
from collections.abc import Sequence
from typing import Any

from mg.cli.settings_table import Setting, field_texts, type_text, value_text
from mg.models.families import AUTOENCODERS, DENOISERS, autoencoder_family, denoiser_family

__all__ = ["KINDS", "family_settings", "settings_with_families"]

# What a field's metadata says in `families` -> the names of the families, and their records.
KINDS = {
    "autoencoders": (tuple(AUTOENCODERS), autoencoder_family),
    "denoisers": (tuple(DENOISERS), denoiser_family),
}
# Latents, text encoders and conditions decide these.
DECIDED = ("text_encoders", "latent_channels", "condition_channels")


def settings_with_families(config_class: type) -> dict[str, str]:
    """Return the settings of a config that take a network's fields, with the kind of network."""
    fields = getattr(config_class, "__dataclass_fields__", {}).values()
    return {f.name: f.metadata["families"] for f in fields if "families" in f.metadata}


def family_settings(kind: str, name: str, prefix: str = "model.") -> list[Setting]:
    """Return the fields of a family's config, with the defaults of the smallest network.

    Args:
        kind: a key of `KINDS`.
        name: of the family.
        prefix: what stands before the names.
    """
    family = KINDS[kind][1](name)
    config = family.read_config(dict(getattr(family, "default_fields", {})))
    texts, hints = field_texts(type(config)), typing.get_type_hints(type(config))
    settings = []
    presets = _presets(config)
    if kind == "denoisers" and presets:
        kinds = "{" + ",".join(presets) + "}"
        default = str(family.default_fields.get("preset", ""))
        text = "Sizes of the network, which the fields below change."
        settings.append(Setting(f"{prefix}preset", kinds, default, text))
    for field, value in config.to_dict().items():
        if field.startswith("_") or (kind == "denoisers" and field in DECIDED):
            continue
        shown = type_text(hints[field]) if field in hints else type_text(type(value))
        settings.append(Setting(prefix + field, shown, value_text(value), texts.get(field, "")))
    return settings


def _presets(config: Any) -> Sequence[str]:
    module = importlib.import_module(type(config).__module__)
    return tuple(getattr(module, "PRESETS", ()))
