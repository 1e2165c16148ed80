"""The folder that a run writes to."""

from pathlib import Path

from mg.files import check_writable_folder
from mg.training.run.run_lock import refuse_if_held
from mg.training.settings import RunSettings

__all__ = ["check_output"]


def check_output(config: RunSettings) -> None:
    """Refuse an `output_path` that cannot be a run's folder, before anything expensive starts.

    Raises:
        FileExistsError: it holds another run.
        ValueError: another run is at work there.
        OSError: there can be no folder, or it cannot be written to.
    """
    output = Path(config.output_path)
    check_writable_folder(output)
    refuse_if_held(output)
    holds_run = (output / "config.yaml").exists()
    if holds_run and not (config.resume or config.overwrite):
        raise FileExistsError(
            f"{output} holds a run already; choose another --output_path, go on with it "
            "(--resume=true), or replace it (--overwrite=true)"
        )
