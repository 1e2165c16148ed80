"""The folder that a run writes to."""

from pathlib import Path

from mg.training.run_lock import refuse_if_held
from mg.training.settings import RunSettings

__all__ = ["check_output"]


def check_output(config: RunSettings) -> None:
    """Refuse an `output_path` that cannot be a run's folder, before anything expensive starts.

    Raises:
        FileExistsError: it holds another run.
        ValueError: another run is at work there.
        NotADirectoryError: there can be no folder.
    """
    output = Path(config.output_path)
    # From there upwards, the first that exists.
    place = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"output_path={output}: {place} is a file, not a folder")
    refuse_if_held(output)
    holds_run = (output / "config.yaml").exists()
    if holds_run and not (config.resume or config.overwrite):
        raise FileExistsError(
            f"{output} holds a run already; choose another --output_path, go on with it "
            "(--resume=true), or replace it (--overwrite=true)"
        )
