"""Losses between a generator and a discriminator, all functions of the discriminator's logits.

`real` and `fake` are logits of any shape, positive where a video is taken for real; the two may
differ in shape. Every mean runs over all logits of the batch. Results are float32 scalars.
"""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

__all__ = [
    "ADVERSARIAL_KINDS",
    "adaptive_weight",
    "discriminator_accuracy",
    "discriminator_loss",
    "generator_loss",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "lecam_penalty",
    "non_saturating_discriminator_loss",
    "non_saturating_generator_loss",
]

ADVERSARIAL_KINDS = ("hinge", "non_saturating")
# Keeps the adaptive weight finite where the adversarial gradient vanishes.
NORM_FLOOR = 1e-4
SOFTPLUS = ops.Softplus()  # log(1 + exp(x)), which overflows nowhere


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return (mean max(1 - real, 0) + mean max(1 + fake, 0)) / 2, with the factor 1/2 of VQGAN.

    Source: "Geometric GAN" (Lim and Ye, arXiv 1705.02894), which has no 1/2.
    """
    return 0.5 * (ops.relu(1.0 - _float32(real)).mean() + ops.relu(1.0 + _float32(fake)).mean())


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """Return -mean fake ("Geometric GAN", Lim and Ye, arXiv 1705.02894)."""
    return -_float32(fake).mean()


def non_saturating_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return (mean softplus(-real) + mean softplus(fake)) / 2.

    That is half the cross-entropy of Goodfellow et al. (arXiv 1406.2661), equation 1; the 1/2 is
    the same as in `hinge_discriminator_loss`.
    """
    return 0.5 * (SOFTPLUS(-_float32(real)).mean() + SOFTPLUS(_float32(fake)).mean())


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """Return mean softplus(-fake) = -mean log sigmoid(fake) (arXiv 1406.2661, section 3)."""
    return SOFTPLUS(-_float32(fake)).mean()


def discriminator_loss(real: Tensor, fake: Tensor, *, kind: str) -> Tensor:
    """Return the discriminator's loss of one of `ADVERSARIAL_KINDS`.

    Raises:
        ValueError: another kind.
    """
    _check_kind(kind)
    if kind == "hinge":
        return hinge_discriminator_loss(real, fake)
    return non_saturating_discriminator_loss(real, fake)


def generator_loss(fake: Tensor, *, kind: str) -> Tensor:
    """Return the generator's loss of one of `ADVERSARIAL_KINDS`.

    Raises:
        ValueError: another kind.
    """
    _check_kind(kind)
    if kind == "hinge":
        return hinge_generator_loss(fake)
    return non_saturating_generator_loss(fake)


def discriminator_accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Return the share of logits on the right side of 0, real and fake weighing the same.

    0.5 is guessing, 1 is a discriminator that is never wrong; a logit of exactly 0 is wrong.
    """
    right_real = ops.cast(real > 0, mstype.float32).mean()
    # Not `fake < 0`: that becomes LessScalar, which is not documented for any device.
    right_fake = ops.cast(-fake > 0, mstype.float32).mean()
    return 0.5 * (right_real + right_fake)


def lecam_penalty(real: Tensor, fake: Tensor, ema_real: Tensor, ema_fake: Tensor) -> Tensor:
    """Return mean max(real - ema_fake, 0)^2 + mean max(ema_real - fake, 0)^2.

    It holds a discriminator back that trains on little data. The square is taken before the mean.
    Source: LeCam (Tseng et al., arXiv 2104.03310), one-sided as in the authors' code.

    Args:
        real: logits of real videos.
        fake: logits of generated ones.
        ema_real: moving average of mean `real` over the steps, a scalar; gets no gradient.
        ema_fake: the same of `fake`.
    """
    above = ops.relu(_float32(real) - ops.stop_gradient(ema_fake))
    below = ops.relu(ops.stop_gradient(ema_real) - _float32(fake))
    return ops.square(above).mean() + ops.square(below).mean()


def adaptive_weight(
    reconstruction_norm: Tensor, adversarial_norm: Tensor, *, max_weight: float
) -> Tensor:
    """Return the generator's weight, clamp(reconstruction / (adversarial + 1e-4), 0, max_weight).

    With it both losses pull equally on the layer that the norms were taken at; it gets no gradient.
    Source: VQGAN (Esser et al., arXiv 2012.09841), equation 7, with the 1e-4 of the authors' code.

    Args:
        reconstruction_norm: L2 norm of the reconstruction loss's gradient, a scalar.
        adversarial_norm: the same of the generator's adversarial loss.
        max_weight: upper limit; the authors' code has 1e4.
    """
    ratio = _float32(reconstruction_norm) / (_float32(adversarial_norm) + NORM_FLOOR)
    return ops.stop_gradient(ops.clamp(ratio, 0.0, max_weight))


def _check_kind(kind: str) -> None:
    if kind not in ADVERSARIAL_KINDS:
        raise ValueError(f"adversarial loss {kind!r}; expected one of {ADVERSARIAL_KINDS}")


def _float32(x: Tensor) -> Tensor:
    return ops.cast(x, mstype.float32)
