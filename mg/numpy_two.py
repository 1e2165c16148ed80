"""MindSpore 2.10 beside numpy 2, for which its extension was not built."""

import contextlib
import io

__all__ = ["prepare_for_numpy_two"]


def prepare_for_numpy_two() -> None:
    """Get MindSpore's one failing call under numpy 2 over with; with numpy 1, do nothing.

    MindSpore looks up numpy's C interface once, in the first method of a tensor that checks its
    arguments. With numpy 2 that call fails, with a page of text on stderr; all later ones work.
    What is lost are numpy's scalars as arguments: `x.reshape(np.int64(3))` raises TypeError. This
    project passes Python's.
    """
    import numpy as np

    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        return
    import mindspore as ms

    # Arguments that are refused: no kernel runs, after which no device could be chosen any more.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemError, TypeError):
        ms.Tensor([0.0]).reshape(None)
