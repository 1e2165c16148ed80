"""AdamW with averaged weights, as cells inside the compiled training step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mg.parameters import (
    clones,
    set_values,
    set_whole_values,
    whole_shape,
    whole_values,
)

__all__ = ["AdamW", "WeightAverage", "averaged_weights"]


class AdamW(nn.Cell):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) on a fixed set of parameters.

        m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
        p = p - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p)

    Weight decay applies to weights of two or more axes, not to biases and norms. Every parameter
    has its own count t of updates, so that one that joins later (its layer was frozen at first)
    starts with the right bias correction.

    Args:
        parameters: what is trained.
        betas: decay rates b1 and b2 of the moments.
        eps: added to the denominator.
        weight_decay: decoupled weight decay.
        lr_multipliers: factor on the learning rate of each parameter; None: 1 for all.
        names: of the parameters in the saved state; None: their own.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        lr_multipliers: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.parameters = ParameterTuple(parameters)
        self.names = [p.name for p in parameters] if names is None else list(names)
        self.first_moment, self.second_moment = (
            clones(parameters, [f"{prefix}.{name}" for name in self.names], init="zeros")
            for prefix in ("first_moment", "second_moment")
        )
        size = len(parameters)
        self.num_updates = Parameter(Tensor(np.zeros(size, np.float32)), name="num_updates")
        multipliers = np.ones(size) if lr_multipliers is None else np.asarray(lr_multipliers)
        self.lr_multipliers = Tensor(multipliers.astype(np.float32))
        decays = [weight_decay if p.ndim > 1 else 0.0 for p in parameters]
        self.decays = Tensor(np.array(decays, np.float32))
        self.beta1, self.beta2 = betas
        self.eps = eps
        self.fused = ops.AdamWeightDecay()
        self.unstack = ops.Unstack()
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        """Apply one update; return the new number of updates of each parameter (P,)."""
        t = self.num_updates + 1.0  # (P,): one entry per parameter, as in all that follows
        ops.assign(self.num_updates, t)
        # The fused kernel has no bias correction: p = p - lr' (m / (sqrt(v) + eps') + decay' p).
        # With c1 = 1 - b1^t and c2 = 1 - b2^t, these three make it the formula above.
        correction1 = 1.0 - ops.pow(self.beta1, t)
        correction2 = ops.sqrt(1.0 - ops.pow(self.beta2, t))  # sqrt(c2)
        updated = self.map(
            ops.partial(_fused_update, self.fused, self.beta1, self.beta2),
            self.unstack(lr * self.lr_multipliers * correction2 / correction1),
            self.unstack(self.eps * correction2),
            self.unstack(self.decays * correction1 / correction2),
            self.parameters,
            self.first_moment,
            self.second_moment,
            gradients,
        )
        return ops.depend(t, updated)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of moments and counts: `first_moment.NAME`, ..., `num_updates.NAME`."""
        arrays = _arrays([*self.first_moment, *self.second_moment])
        counts = self.num_updates.asnumpy()
        for name, count in zip(self.names, counts, strict=True):
            arrays[f"num_updates.{name}"] = np.array(count)
        return arrays

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `state`, by name."""
        shapes = {m.name: whole_shape(m) for m in (*self.first_moment, *self.second_moment)}
        return {**shapes, **{f"num_updates.{name}": () for name in self.names}}

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set what `arrays` holds by the names of `state`; parameters it lacks start anew."""
        for moment in (*self.first_moment, *self.second_moment):
            zeros = np.zeros(whole_shape(moment), np.float32)
            set_whole_values(moment, arrays.get(moment.name, zeros))
        counts = [arrays.get(f"num_updates.{name}", 0.0) for name in self.names]
        set_values(self.num_updates, np.array(counts, np.float32))


def _fused_update(fused, beta1, beta2, lr, eps, decay, parameter, m, v, gradient):
    """Update one parameter and its two moments in place."""
    return fused(parameter, m, v, lr, beta1, beta2, eps, decay, gradient)


class WeightAverage(nn.Cell):
    """Exponential moving average of parameters: e = d e + (1 - d) p.

    The decay grows with the number of updates t as min(d, (1 + t) / (10 + t)), so that the
    average follows a young run closely.
    """

    def __init__(self, parameters: Sequence[Parameter], *, decay: float) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.parameters = ParameterTuple(parameters)
        self.average = clones(parameters, [f"average.{p.name}" for p in parameters], init="same")
        self.num_averaged = Parameter(Tensor(0.0, ms.float32), name="num_averaged")
        self.decay = decay
        self.map = ops.HyperMap()

    def construct(self) -> Tensor:
        """Move the averages towards the parameters; return the decay that was used."""
        t = self.num_averaged + 1.0
        ops.assign(self.num_averaged, t)
        decay = ops.minimum((1.0 + t) / (10.0 + t), self.decay)
        self.map(ops.partial(_move_average, decay), self.average, self.parameters)
        return decay

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of the averages, `average.NAME`, and their count."""
        return _arrays([*self.average, self.num_averaged])

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `state`, by name."""
        return {p.name: whole_shape(p) for p in (*self.average, self.num_averaged)}

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set what `arrays` holds; averages that it lacks start at the parameters' values."""
        for average, parameter in zip(self.average, self.parameters, strict=True):
            if average.name in arrays:
                set_whole_values(average, arrays[average.name])
            else:
                set_values(average, parameter.asnumpy())
        set_values(self.num_averaged, np.array(arrays.get("num_averaged", 0.0), np.float32))


def _move_average(decay, average, parameter):
    return ops.assign(average, decay * average + (1.0 - decay) * parameter)


@contextmanager
def averaged_weights(average: WeightAverage | None) -> Iterator[None]:
    """Put the averaged weights in the place of the trained ones for the time of the block."""
    if average is None:
        yield
        return
    trained = [parameter.asnumpy().copy() for parameter in average.parameters]
    for parameter, mean in zip(average.parameters, average.average, strict=True):
        set_values(parameter, mean.asnumpy())
    try:
        yield
    finally:
        for parameter, values in zip(average.parameters, trained, strict=True):
            set_values(parameter, values)


def _arrays(parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
    return {parameter.name: whole_values(parameter) for parameter in parameters}
