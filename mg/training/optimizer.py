"""AdamW with averaged weights, as cells inside the compiled training step."""

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

__all__ = ["AdamW", "WeightAverage"]


class AdamW(nn.Cell):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) on a fixed set of parameters.

        m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
        p = p - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p)

    Weight decay applies to weights of two or more axes, not to biases and norms.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.parameters = ParameterTuple(parameters)
        self.first_moment = self.parameters.clone(prefix="first_moment", init="zeros")
        self.second_moment = self.parameters.clone(prefix="second_moment", init="zeros")
        self.num_updates = Parameter(Tensor(0.0, ms.float32), name="num_updates")
        self.beta1, self.beta2 = betas
        self.eps = eps
        self.decays = tuple(weight_decay if p.ndim > 1 else 0.0 for p in parameters)
        self.fused = ops.AdamWeightDecay()
        self.map = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        """Apply one update; return how many there were."""
        t = self.num_updates + 1.0
        ops.assign(self.num_updates, t)
        # The fused kernel has no bias correction: p = p - lr' (m / (sqrt(v) + eps') + decay' p).
        # With c1 = 1 - b1^t and c2 = 1 - b2^t, these three make it the formula above.
        correction1 = 1.0 - ops.pow(self.beta1, t)
        correction2 = ops.sqrt(1.0 - ops.pow(self.beta2, t))  # sqrt(c2)
        update = ops.partial(
            _fused_update,
            self.fused,
            self.beta1,
            self.beta2,
            lr * correction2 / correction1,
            self.eps * correction2,
            correction1 / correction2,
        )
        updated = self.map(
            update,
            self.decays,
            self.parameters,
            self.first_moment,
            self.second_moment,
            gradients,
        )
        return ops.depend(t, updated)


def _fused_update(fused, beta1, beta2, lr, eps, decay_factor, decay, parameter, m, v, gradient):
    """Update one parameter and its two moments in place."""
    return fused(parameter, m, v, lr, beta1, beta2, eps, decay * decay_factor, gradient)


class WeightAverage(nn.Cell):
    """Exponential moving average of parameters: e = d e + (1 - d) p.

    The decay grows with the number of updates t as min(d, (1 + t) / (10 + t)), so that the
    average follows a young run closely.
    """

    def __init__(self, parameters: list[Parameter], *, decay: float) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        self.parameters = ParameterTuple(parameters)
        self.average = self.parameters.clone(prefix="average", init="same")
        self.decay = decay
        self.map = ops.HyperMap()

    def construct(self, num_updates: Tensor) -> Tensor:
        decay = ops.minimum((1.0 + num_updates) / (10.0 + num_updates), self.decay)
        self.map(ops.partial(_move_average, decay), self.average, self.parameters)
        return decay


def _move_average(decay, average, parameter):
    return ops.assign(average, decay * average + (1.0 - decay) * parameter)
