"""One training step as one compiled graph: forward, loss, backward, clip, update, average."""

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mg.parallel.collectives import GradientMean, ScalarMean
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.parallel.sharded_optimizer import ShardedAdamW
from mg.training.config import OptimSettings
from mg.training.optimizer import AdamW, WeightAverage

__all__ = ["TrainStep"]


class TrainStep(nn.Cell):
    """Forward, backward, clipping, AdamW and weight average, in one graph.

    A step whose gradient norm is not finite changes nothing but is reported, so that the loop can
    lower the loss scale or stop.

    Args:
        loss: cell that returns (loss, terms) from the batch; its trainable parameters are trained.
        settings: optimiser settings.
        ranks: whose gradients are averaged; each rank has its own part of the batch.
        shard_optimizer: each rank keeps the moments of its share of the parameters only.
    """

    def __init__(
        self,
        loss: nn.Cell,
        settings: OptimSettings,
        *,
        ranks: Ranks = ONE_RANK,
        shard_optimizer: bool = False,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        parameters = list(loss.trainable_params())
        self.loss = loss
        self.parameters = ParameterTuple(parameters)
        adamw = {
            "betas": settings.betas,
            "eps": settings.eps,
            "weight_decay": settings.weight_decay,
        }
        self.optimizer = (
            ShardedAdamW(parameters, ranks, **adamw)
            if shard_optimizer
            else AdamW(parameters, **adamw)
        )
        self.mean_of_scalars = ScalarMean(ranks)
        self.mean_of_gradients = GradientMean(ranks, [p.size for p in parameters])
        self.average = (
            WeightAverage(parameters, decay=settings.ema_decay)
            if settings.ema_decay is not None
            else None
        )
        self.accumulation_steps = settings.accumulation_steps
        self.accumulated = (
            self.parameters.clone(prefix="accumulated", init="zeros")
            if settings.accumulation_steps > 1
            else None
        )
        self.clip_grad_norm = settings.clip_grad_norm
        self.map = ops.HyperMap()
        self.loss_and_gradients = ms.value_and_grad(
            self._scaled_loss, None, weights=self.parameters, has_aux=True
        )

    def _scaled_loss(self, loss_scale: Tensor, *batch: Tensor) -> tuple:
        loss, terms = self.loss(*batch)
        return loss * loss_scale, loss, terms

    def state(self) -> dict[str, Parameter]:
        """Return all that an exact resume needs besides the trained parameters, by name."""
        parameters = [*self.optimizer.first_moment, *self.optimizer.second_moment]
        parameters.append(self.optimizer.num_updates)
        if self.average is not None:
            parameters += list(self.average.average)
        return {parameter.name: parameter for parameter in parameters}

    def construct(
        self, lr: Tensor, loss_scale: Tensor, is_last: bool, *batch: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Return (loss, terms, global gradient norm before clipping), float32.

        Args:
            lr: learning rate, scalar.
            loss_scale: factor on the loss during the backward pass, scalar.
            is_last: whether this batch completes an update; with gradient accumulation the
                earlier ones only add up gradients.
            batch: what the loss cell takes.
        """
        (_, loss, terms), gradients = self.loss_and_gradients(loss_scale, *batch)
        if self.accumulated is not None:
            gradients = self.map(_add_to, self.accumulated, gradients)
        means = self.mean_of_scalars((loss, *terms))
        loss, terms = means[0], means[1:]
        if is_last:
            gradients = self.mean_of_gradients(gradients, loss)
        unscale = 1.0 / (loss_scale * self.accumulation_steps)
        norm = ops.sqrt(ops.addn(self.map(_square_sum, gradients))) * unscale
        if is_last:
            if ops.isfinite(norm):
                self._update(gradients, unscale, norm, lr)
            if self.accumulated is not None:
                self.map(_reset, self.accumulated)
        return loss, terms, norm

    def _update(
        self, gradients: tuple[Tensor, ...], unscale: Tensor, norm: Tensor, lr: Tensor
    ) -> None:
        # Unscaling and clipping in one pass over the gradients.
        factor = unscale
        if self.clip_grad_norm is not None:
            factor = factor * ops.minimum(self.clip_grad_norm / (norm + 1e-6), 1.0)
        num_updates = self.optimizer(self.map(ops.partial(_scale, factor), gradients), lr)
        if self.average is not None:
            self.average(num_updates)


def _scale(factor, gradient):
    return gradient * factor


def _square_sum(gradient):
    return ops.square(gradient).sum()


def _add_to(total, gradient):
    return ops.assign(total, total + gradient)


def _reset(total):
    return ops.assign(total, ops.zeros_like(total))
