"""Damaged latent files: whatever is in them, they are refused in a documented way or read right."""

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np

from fault_experiments.experiment import SEED, Experiment, Trials
from mg.data.latent_files import LatentInfo, LatentWriter, read_latent
from mg.models.families import autoencoder_family

__all__ = ["EXPERIMENTS", "damaged_npz", "write_small_latent"]

MAX_MESSAGE = 2000  # characters


def write_small_latent(path: Path) -> None:
    """Write a latent of one frame; its suffix chooses the format."""
    config = autoencoder_family("tae").read_config({}).to_dict()
    info = LatentInfo(1, 16, 16, 24.0, "clip.mp4", config, "0" * 64, "1" * 64, {})
    values = np.random.default_rng(SEED).standard_normal(info.latent_shape(), np.float32)
    with LatentWriter(path, info) as writer:
        writer.write(values, values)


def damaged_npz(content: bytes, generator: np.random.Generator) -> bytes:
    """Return an archive with bytes changed: of the archive, or of a member, with right checksums.

    Args:
        content: of an intact archive.
        generator: decides where and how.
    """
    if generator.random() < 0.5:
        return _with_changed_bytes(content, generator)
    packed = io.BytesIO()
    compression = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[generator.integers(2)]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = generator.choice(list(members))
    # Half of them in the array's header, which says how the rest is to be read.
    end = 128 if generator.random() < 0.5 else None
    members[chosen] = _with_changed_bytes(members[chosen], generator, end)
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


def _with_changed_bytes(
    content: bytes, generator: np.random.Generator, end: int | None = None
) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        changed[generator.integers(end or len(changed))] = generator.integers(256)
    if generator.random() < 0.1:
        del changed[generator.integers(len(changed)) :]
    return bytes(changed)


def fuzz_latents(folder: Path, num_trials: int) -> Trials:
    """Change bytes of an .npz latent at random; yield what is not a documented error."""
    path = folder / "a.npz"
    write_small_latent(path)
    content, generator = path.read_bytes(), np.random.default_rng(SEED)
    for _ in range(num_trials):
        path.write_bytes(damaged_npz(content, generator))
        yield _fault_of_reading(path)


def _fault_of_reading(path: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, of headers that Python 2 wrote
            latent = read_latent(path)
    except ValueError as error:
        message = str(error)
        if "\n" in message or len(message) > MAX_MESSAGE or path.name not in message:
            return f"a message that is not a line about the file: {message[:200]!r}"
        return None
    except Exception as error:
        return f"undocumented: {error!r}"
    shape = latent.info.latent_shape()
    is_right = latent.mean.shape == latent.logvar.shape == shape
    return None if is_right else f"read as {latent.mean.shape} instead of {shape}"


EXPERIMENTS = {
    "fuzz_latents": Experiment(
        "Bytes of a latent file (.npz) changed at random, in the archive or in its arrays: a "
        "documented error in one line, or a latent of the stated size",
        4000,
        fuzz_latents,
    ),
}
