"""The precisions that networks and weight files have, by name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mindspore as ms

__all__ = ["DTYPES", "dtype_named", "refuse_bfloat16_on_cpu"]

DTYPES = ("float32", "float16", "bfloat16")


def dtype_named(name: str, argument: str, *, operation: str) -> "ms.Type":
    """Return MindSpore's type of a name.

    Args:
        name: one of `DTYPES`.
        argument: what it was given as, for messages.
        operation: the one that the network is made of.

    Raises:
        ValueError: an unknown name, or a precision that this device lacks.
    """
    import mindspore as ms

    if name not in DTYPES:
        raise ValueError(f"{argument}={name!r}; expected one of {sorted(DTYPES)}")
    refuse_bfloat16_on_cpu(name, f"{argument}=bfloat16", operation=operation)
    return getattr(ms, name)


def refuse_bfloat16_on_cpu(name: str, what: str, *, operation: str) -> None:
    """Raise ValueError for bfloat16 where MindSpore runs on CPU.

    Args:
        name: one of `DTYPES`.
        what: is to be in it, for the message.
        operation: that CPUs lack.
    """
    from mg.device import runs_on_cpu

    if name == "bfloat16" and runs_on_cpu():
        raise ValueError(
            f"{what}: MindSpore's CPU kernels have no bf16 {operation}; use float32 or float16 on "
            "CPU"
        )
