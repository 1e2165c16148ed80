"""Memory that training Movie Gen's transformer takes on each card, and how few cards are enough.

Counted, not measured. Per parameter: a bf16 copy for the products (2 bytes), the float32
parameter (4), its gradient in float32 (4), Adam's two moments (8), the averaged weight (4).
Activations: those of bf16 and flash attention, of one clip for each group of cards that share a
sequence.
Source of the stages: ZeRO (Rajbhandari et al., arXiv 1910.02054) section 5; of sequence parallel:
DeepSpeed-Ulysses (arXiv 2309.14509).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from mg.models.denoiser_config import DenoiserConfig
from mg.models.movie_gen.costs import activation_bytes, block_parameters
from mg.models.movie_gen.parameter_shapes import num_parameters

__all__ = ["ZERO_STAGES", "Plan", "make_plan", "smallest_plan", "state_bytes"]

ZERO_STAGES = (0, 1, 2, 3)
WEIGHT_BYTES, GRADIENT_BYTES = 2, 4
OPTIMISER_BYTES = 4 + 8 + 4  # float32 parameter, moments, averaged weight
MAX_CARDS = 1024


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings to train with, and what each card then holds.

    Attributes:
        num_cards: in all; num_cards / sequence_parallel clips make a batch.
        zero: what is spread over all cards: 0 nothing, 1 the optimiser's state, 2 gradients too,
            3 weights too.
        sequence_parallel: cards that share the tokens of a clip.
        recompute: of every layer.
        state_bytes: weights, gradients and the optimiser's state, per card.
        activation_bytes: at their peak, per card.
    """

    num_cards: int
    zero: int
    sequence_parallel: int
    recompute: bool
    state_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.state_bytes + self.activation_bytes


def state_bytes(config: DenoiserConfig, *, zero: int, num_cards: int) -> int:
    """Return the bytes of weights, gradients and the optimiser's state on each card.

    What is spread has to be whole for a moment where it is used: at stage 2 the gradient of one
    layer, at stage 3 also the weights of that layer and of the next, which is fetched meanwhile.

    Args:
        config: of the transformer.
        zero: 0 to 3, as in `Plan`.
        num_cards: that share the state.

    Raises:
        ValueError: no such stage; less than one card.
    """
    if zero not in ZERO_STAGES or num_cards < 1:
        raise ValueError(f"ZeRO stage {zero} on {num_cards} cards; expected 0 to 3, 1 or more")
    size, layer = _sizes(config)
    whole = WEIGHT_BYTES * (zero < 3) + GRADIENT_BYTES * (zero < 2) + OPTIMISER_BYTES * (zero < 1)
    spread = WEIGHT_BYTES + GRADIENT_BYTES + OPTIMISER_BYTES - whole
    passing = layer * (GRADIENT_BYTES * (zero >= 2) + 2 * WEIGHT_BYTES * (zero >= 3))
    return whole * size + -(-spread * size // num_cards) + passing * (num_cards > 1)


@functools.lru_cache
def _sizes(config: DenoiserConfig) -> tuple[int, int]:
    """Return the numbers in all parameters and in those of one layer."""
    return num_parameters(config), block_parameters(config)


def make_plan(
    config: DenoiserConfig,
    num_tokens: int,
    *,
    num_cards: int,
    zero: int,
    sequence_parallel: int = 1,
    recompute: bool = True,
) -> Plan:
    """Return what each card holds with these settings.

    Args:
        config: of the transformer.
        num_tokens: of one clip.
        num_cards, zero, sequence_parallel, recompute: as in `Plan`.

    Raises:
        ValueError: sequence parallel does not divide cards, tokens and heads; as `state_bytes`.
    """
    for name, number in (
        ("cards", num_cards),
        ("tokens", num_tokens),
        ("heads", config.num_heads),
    ):
        if sequence_parallel < 1 or number % sequence_parallel:
            raise ValueError(
                f"sequence_parallel={sequence_parallel} does not divide the {number} {name}; "
                "every card takes as many"
            )
    activations = activation_bytes(config, num_tokens // sequence_parallel)
    return Plan(
        num_cards=num_cards,
        zero=zero,
        sequence_parallel=sequence_parallel,
        recompute=recompute,
        state_bytes=state_bytes(config, zero=zero, num_cards=num_cards),
        activation_bytes=activations.peak(recompute=recompute),
    )


def smallest_plan(
    config: DenoiserConfig,
    num_tokens: int,
    *,
    card_bytes: float,
    zero_stages: Sequence[int] = ZERO_STAGES,
    sequence_parallel: bool = True,
    recompute: bool = True,
) -> Plan | None:
    """Return the plan with the fewest cards that hold it: 1, 2, 4, 8 or a multiple of 8.

    Of several, the one that costs least: first without recomputation, then with the lowest stage
    of ZeRO, then with the fewest cards per sequence. None: no number up to 1024 is enough.

    Args:
        config: of the transformer.
        num_tokens: of one clip.
        card_bytes: that a card has for the plan.
        zero_stages: that may be used.
        sequence_parallel: whether cards may share a sequence.
        recompute: whether layers may be recomputed.
    """
    for num_cards in (1, 2, 4, *range(8, MAX_CARDS + 1, 8)):
        degrees = range(1, num_cards + 1 if sequence_parallel else 2)
        for plan in _plans(config, num_tokens, num_cards, zero_stages, degrees, recompute):
            if plan.total_bytes <= card_bytes:
                return plan
    return None


def _plans(
    config: DenoiserConfig,
    num_tokens: int,
    num_cards: int,
    zero_stages: Sequence[int],
    degrees: Sequence[int],
    recompute: bool,
) -> Iterator[Plan]:
    """Return all plans for so many cards, the one that costs least first."""
    shared = (num_cards, num_tokens, config.num_heads)
    degrees = [degree for degree in degrees if not any(n % degree for n in shared)]
    for recomputed in (False, True) if recompute else (False,):
        for zero in sorted(zero_stages):
            for degree in degrees:
                yield make_plan(
                    config,
                    num_tokens,
                    num_cards=num_cards,
                    zero=zero,
                    sequence_parallel=degree,
                    recompute=recomputed,
                )
