"""One training update as one compiled graph: forward, loss, backward, clip, update, average."""

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mg.parallel.collectives import GradientMean, ScalarMean
from mg.parallel.ranks import ONE_RANK, Ranks
from mg.training.optimizers.optimizer import AdamW, WeightAverage
from mg.training.optimizers.sharded_gradients import ShardedGradients
from mg.training.optimizers.sharded_optimizer import ShardedAdamW
from mg.training.settings import OptimSettings

__all__ = ["TrainStep"]


class TrainStep(nn.Cell):
    """Forward, backward, clipping, AdamW and weight average, in one graph.

    An update whose loss or gradient norm is not finite, or whose norm is above a limit, changes
    nothing but is reported, so that the loop can lower the loss scale, go back or stop.

    Args:
        loss: cell that returns (loss, terms, output) from the batch; `output` is any tensor that
            the caller wants to have, such as the reconstruction.
        settings: optimiser settings.
        parameters: what is trained; None: the trainable parameters of `loss`.
        lr_multipliers: factor on the learning rate of each of them; None: 1 for all.
        ranks: whose gradients are averaged; each rank has its own part of the batch.
        zero_stage: what each rank keeps its share of only (arXiv 1910.02054): 0 nothing, 1 the
            optimiser's moments, 2 gradients too; 3 is for networks that share their parameters
            (`mg.training.optimizers.sharded_linear`), whose moments and gradients follow.
    """

    def __init__(
        self,
        loss: nn.Cell,
        settings: OptimSettings,
        *,
        parameters: Sequence[Parameter] | None = None,
        lr_multipliers: Sequence[float] | None = None,
        ranks: Ranks = ONE_RANK,
        zero_stage: int = 0,
    ) -> None:
        super().__init__(auto_prefix=False)  # leaves parameter names as they are
        parameters = list(loss.trainable_params() if parameters is None else parameters)
        self.loss = loss
        self.ranks = ranks
        self.parameters = ParameterTuple(parameters)
        adamw = {
            "betas": settings.betas,
            "eps": settings.eps,
            "weight_decay": settings.weight_decay,
            "lr_multipliers": lr_multipliers,
        }
        zero_stage = zero_stage if ranks.size > 1 else 0
        self.shards_gradients = zero_stage >= 2
        self.optimizer = (
            ShardedAdamW(parameters, ranks, takes_rows=zero_stage == 2, **adamw)
            if zero_stage in (1, 2)
            else AdamW(parameters, **adamw)
        )
        self.mean_of_scalars = ScalarMean(ranks)
        self.mean_of_gradients = (
            ShardedGradients(parameters, ranks, takes_rows=zero_stage == 2)
            if self.shards_gradients
            else GradientMean(ranks, [p.size for p in parameters])
        )
        self.average = (
            WeightAverage(parameters, decay=settings.ema_decay)
            if settings.ema_decay is not None
            else None
        )
        self.accumulation_steps = settings.accumulation_steps
        self.accumulated = (
            self._like_gradients.clone(prefix="accumulated", init="zeros")
            if settings.accumulation_steps > 1
            else None
        )
        self.clip_grad_norm = settings.clip_grad_norm
        self.map = ops.HyperMap()
        self.loss_and_gradients = ms.value_and_grad(
            self._scaled_loss, None, weights=self.parameters, has_aux=True
        )

    @property
    def _like_gradients(self) -> ParameterTuple:
        """Parameters of the gradients' shapes, once those are averaged if they are shared."""
        is_sharded = isinstance(self.optimizer, ShardedAdamW) and self.shards_gradients
        return self.optimizer.own if is_sharded else self.parameters

    def _scaled_loss(self, loss_scale: Tensor, *batch: Tensor) -> tuple:
        loss, terms, output = self.loss(*batch)
        return loss * loss_scale, loss, terms, output

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of all that an exact resume needs besides the parameters, by name."""
        average = self.average.state() if self.average is not None else {}
        return {**self.optimizer.state(), **average}

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `state`, by name."""
        shapes = self.optimizer.state_shapes()
        if self.average is not None:
            shapes.update(self.average.state_shapes())
        return shapes

    def load_state(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the state that `arrays` holds; parameters that it does not know start anew."""
        self.optimizer.load_state(arrays)
        if self.average is not None:
            self.average.load_state(arrays)

    def __call__(self, *args: Tensor | bool) -> tuple:
        """Return what `construct` does; all ranks must call it."""
        if self.ranks.size > 1:
            # Collectives give up soon when a rank is late, as one is that got its batch or its
            # graph later; this waits as long as it takes.
            if ms.get_context("mode") == ms.GRAPH_MODE:
                self.compile(*args)
            self.ranks.barrier()
        return super().__call__(*args)

    def construct(
        self, lr: Tensor, loss_scale: Tensor, max_norm: Tensor, is_last: bool, *batch: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor]:
        """Return (loss, terms, global gradient norm before clipping, output); fp32 scalars first.

        Args:
            lr: learning rate, scalar.
            loss_scale: factor on the loss during the backward pass, scalar.
            max_norm: the update is left out where the gradient norm exceeds it, scalar.
            is_last: whether this batch completes an update; with gradient accumulation the
                earlier ones only add up gradients.
            batch: what the loss cell takes.
        """
        (_, loss, terms, output), gradients = self.loss_and_gradients(loss_scale, *batch)
        if self.shards_gradients:
            gradients = self.mean_of_gradients(gradients)
        if self.accumulated is not None:
            gradients = self.map(_add_to, self.accumulated, gradients)
        # Every rank sees the same means, and so takes the same decision below.
        means = self.mean_of_scalars(ops.depend((loss, *terms), gradients))
        loss, terms = means[0], means[1:]
        if is_last and not self.shards_gradients:
            gradients = self.mean_of_gradients(gradients, loss)
        unscale = 1.0 / (loss_scale * self.accumulation_steps)
        norm = ops.sqrt(self._squared_norm(gradients, loss)) * unscale
        if is_last:
            # Comparisons with NaN are false, and an infinite norm is above every finite limit.
            if ops.logical_and(ops.isfinite(norm + loss), norm <= max_norm):
                self._update(gradients, unscale, norm, lr)
            if self.accumulated is not None:
                self.map(_reset, self.accumulated)
        return loss, terms, norm, output

    def _squared_norm(self, gradients: tuple[Tensor, ...], after: Tensor) -> Tensor:
        if self.shards_gradients:
            return self.mean_of_gradients.square_sum(gradients, after)
        return ops.addn(self.map(_square_sum, gradients))

    def _update(
        self, gradients: tuple[Tensor, ...], unscale: Tensor, norm: Tensor, lr: Tensor
    ) -> None:
        # Unscaling and clipping in one pass over the gradients.
        factor = unscale
        if self.clip_grad_norm is not None:
            factor = factor * ops.minimum(self.clip_grad_norm / (norm + 1e-6), 1.0)
        self.optimizer(self.map(ops.partial(_scale, factor), gradients), lr)
        if self.average is not None:
            self.average()


def _scale(factor, gradient):
    return gradient * factor


def _square_sum(gradient):
    # As a product of a row and a column: one pass, and no copy of the gradient.
    row = gradient.reshape(1, -1).astype(ms.float32)
    return ops.matmul(row, row.reshape(-1, 1)).reshape(())


def _add_to(total, gradient):
    return ops.assign(total, total + gradient)


def _reset(total):
    return ops.assign(total, ops.zeros_like(total))
