#!/usr/bin/env python
"""Print what Movie Gen transformers cost to train: FLOPs, memory, the fewest cards.

python tools/estimate_costs.py

Nothing is built or run; MindSpore is not needed. The assumptions are in docs/costs.md and
in mg/models/movie_gen/costs.py and tools/memory_plan.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# From a checkout this also works without installing, from any folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory_plan import ZERO_STAGES, Plan, smallest_plan, state_bytes
from mg.cli import run_main
from mg.models.movie_gen.config import PRESETS
from mg.models.movie_gen.costs import activation_bytes, forward_flops

# Pixels per token along an axis: 8 of the TAE; in space times 2 of the patch.
PIXELS_PER_TOKEN = 16
FRAMES_PER_TOKEN = 8
# Which settings the fewest cards are looked for with.
CHOICES = {
    "any settings": {},
    "no recompute": {"recompute": False},
    "no sequence parallel": {"sequence_parallel": False},
    "ZeRO-1 at most": {"zero_stages": (0, 1)},
}


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def num_tokens(num_frames: int, side: int) -> int:
    """Return the tokens of a square video, sizes in pixels."""
    return -(-num_frames // FRAMES_PER_TOKEN) * (side // PIXELS_PER_TOKEN) ** 2


def flops_table(presets: Sequence[str], sides: Sequence[int], num_frames: int) -> str:
    """Return FLOPs and activations of one clip."""
    rows = []
    for preset in presets:
        for side in sides:
            tokens = num_tokens(num_frames, side)
            flops = forward_flops(PRESETS[preset], tokens)
            kept = activation_bytes(PRESETS[preset], tokens)
            row = [preset, f"{side} px", f"{tokens:,}", three_digits(flops.total / 1e15)]
            row += [f"{flops.attention_share:.0%}"]
            row += [three_digits(passes * flops.total / 1e15) for passes in (3, 4)]
            row += [three_digits(kept.peak(recompute=x) / 1e9) for x in (False, True)]
            rows.append(row)
    header = ["preset", "video", "tokens", "forward PFLOP", "attention's share", "step PFLOP"]
    header += ["with recompute", "activations GB", "with recompute"]
    return markdown(header, rows)


def state_table(presets: Sequence[str], cards: Sequence[int]) -> str:
    """Return the state per card, in GB, for each stage of ZeRO."""
    rows = []
    for preset in presets:
        for number in cards:
            stages = [
                f"{state_bytes(PRESETS[preset], zero=zero, num_cards=number) / 1e9:.1f}"
                for zero in ZERO_STAGES
            ]
            rows.append([preset, str(number), *stages])
    return markdown(["preset", "cards", *(f"ZeRO-{zero} GB" for zero in ZERO_STAGES)], rows)


def described(plan: Plan | None) -> str:
    if plan is None:
        return "none"
    words = [f"ZeRO-{plan.zero}"] if plan.zero else []
    if plan.sequence_parallel > 1:
        words.append(f"SP {plan.sequence_parallel}")
    if plan.recompute:
        words.append("recompute")
    state, activations = plan.state_bytes / 1e9, plan.activation_bytes / 1e9
    return f"**{plan.num_cards}**: {', '.join([*words, f'{state:.0f} + {activations:.0f} GB'])}"


def cards_table(
    presets: Sequence[str], sides: Sequence[int], num_frames: int, card_bytes: float
) -> str:
    """Return the fewest cards, with the settings and state + activations on each."""
    rows = []
    for preset in presets:
        for side in sides:
            tokens = num_tokens(num_frames, side)
            plans = [
                smallest_plan(PRESETS[preset], tokens, card_bytes=card_bytes, **choice)
                for choice in CHOICES.values()
            ]
            rows.append([preset, f"{side} px", *map(described, plans)])
    return markdown(["preset", "video", *CHOICES], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["1b", "5b", "30b"])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 768], help="in pixels")
    parser.add_argument("--num_frames", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--card_gb", type=float, default=64.0, help="memory of a card, 10^9 bytes")
    parser.add_argument(
        "--usable", type=float, default=0.9, help="part of it that is free for training"
    )
    arguments = parser.parse_args()
    presets, sides, num_frames = arguments.presets, arguments.sides, arguments.num_frames
    bad = [side for side in sides if side < PIXELS_PER_TOKEN or side % PIXELS_PER_TOKEN]
    if bad or num_frames < 1:
        parser.error(
            f"sides {bad}, {num_frames} frames; sides are multiples of 16, 1 frame or more"
        )
    if not (arguments.card_gb > 0 and 0 < arguments.usable <= 1):
        parser.error("--card_gb must be above 0, --usable from 0 to 1")
    print(f"One clip of {num_frames} frames:\n")
    print(flops_table(presets, sides, num_frames))
    print("\nState per card:\n")
    print(state_table(presets, (1, 8, 64)))
    usable = arguments.usable * arguments.card_gb
    print(f"\nFewest cards of {arguments.card_gb:g} GB ({usable:.1f} GB usable):\n")
    print(cards_table(presets, sides, num_frames, usable * 1e9))


if __name__ == "__main__":
    run_main(main)
