"""Which parameters train, and at which learning rate, by patterns of their names.

A pattern is shell style (`decoder.up.*.norm1.*`), the name of a part, which stands for all that
is in it (`encoder`, `decoder.mid`), or an alias that the network offers (`temporal`,
`vae_encoder`, `vae_decoder`).
"""

import fnmatch
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mg.known_names import did_you_mean

__all__ = [
    "autoencoder_halves",
    "group_table",
    "has_match",
    "learning_rate_multipliers",
    "matching_names",
    "trainable_names",
]

Aliases = Mapping[str, Sequence[str]]


def autoencoder_halves(prefix: str = "") -> dict[str, list[str]]:
    """Return the aliases of the two halves of an autoencoder of any family.

    Every parameter that can train is in one of them: `quant_conv` follows the encoder,
    `post_quant_conv` precedes the decoder.

    Args:
        prefix: what stands before the names of the autoencoder's parameters, e.g. "vae.".
    """
    parts = {
        "vae_encoder": ("encoder", "quant_conv"),
        "vae_decoder": ("decoder", "post_quant_conv"),
    }
    places = prefix, f"{prefix}*."
    return {
        half: [f"{place}{part}.*" for part in names for place in places]
        for half, names in parts.items()
    }


def matching_names(names: Sequence[str], pattern: str, *, aliases: Aliases) -> set[str]:
    """Return the names that a pattern stands for.

    Args:
        names: of all parameters.
        pattern: see above.
        aliases: what short names stand for, e.g. {"temporal": ["*.conv_temp.*"]}.

    Raises:
        ValueError: there are none.
    """
    found = _found(names, aliases.get(pattern, (pattern,)))
    if not found and pattern in aliases:
        raise ValueError(f"the network has no parameter that {pattern!r} stands for")
    if not found:
        parts = {".".join(name.split(".")[:n]) for name in names for n in (1, 2, 3)}
        known = [*names, *parts, *aliases]
        hint = did_you_mean(pattern, known, f"names are like {names[0]!r}")
        raise ValueError(f"no parameter matches {pattern!r}; {hint}")
    return found


def has_match(names: Sequence[str], patterns: Iterable[str]) -> bool:
    """Return whether any of the names of parameters fits one of the patterns."""
    return bool(_found(names, patterns))


def _found(names: Sequence[str], patterns: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        found.update(fnmatch.filter(names, pattern))
        found.update(name for name in names if name.startswith(f"{pattern}."))
    return found


def trainable_names(
    names: Sequence[str],
    train: Iterable[str] | None,
    freeze: Iterable[str],
    *,
    aliases: Aliases,
) -> list[str]:
    """Return the names that train, in their order: those of `train` without those of `freeze`.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to train.
    """
    chosen = set(names)
    if train is not None:
        chosen = _union("train", names, train, aliases)
    chosen -= _union("freeze", names, freeze, aliases)
    if not chosen:
        raise ValueError(
            f"train={train} and freeze={list(freeze)} leave no parameter to train; loosen one"
        )
    return [name for name in names if name in chosen]


def _union(setting: str, names: Sequence[str], patterns: Iterable[str], aliases: Aliases) -> set:
    try:
        return set().union(*(matching_names(names, p, aliases=aliases) for p in patterns))
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error


def learning_rate_multipliers(
    names: Sequence[str], multipliers: Mapping[str, float], *, aliases: Aliases
) -> dict[str, float]:
    """Return the factor on the learning rate of each name; the last pattern that fits counts.

    An alias may stand for nothing: some networks of a family have no such layers.

    Raises:
        ValueError: a pattern matches nothing.
    """
    factors = dict.fromkeys(names, 1.0)
    for pattern, factor in multipliers.items():
        if pattern in aliases and not _found(names, aliases[pattern]):
            continue
        try:
            found = matching_names(names, pattern, aliases=aliases)
        except ValueError as error:
            raise ValueError(f"lr_multipliers: {error}") from error
        factors.update(dict.fromkeys(found, factor))
    return factors


def group_table(
    sizes: Mapping[str, int], trained: Iterable[str], multipliers: Mapping[str, float]
) -> str:
    """Return a text table of the groups (part, trained or frozen, learning rate) and their sizes.

    Args:
        sizes: number of values of each parameter by name.
        trained: names of those that train.
        multipliers: factor on the learning rate by name.
    """
    trained = set(trained)
    tensors: Counter = Counter()
    values: Counter = Counter()
    for name, size in sizes.items():
        rate = f"x {multipliers[name]:g}" if name in trained else "frozen"
        group = (name.split(".")[0], rate)
        tensors[group] += 1
        values[group] += size
    lines = [f"{'part':<20}{'learning rate':>14}{'tensors':>9}{'parameters':>14}"]
    for part, rate in sorted(values):
        group = part, rate
        lines.append(f"{part:<20}{rate:>14}{tensors[group]:>9,}{values[group]:>14,}")
    num_trained = sum(size for name, size in sizes.items() if name in trained)
    lines.append(f"training {num_trained:,} of {sum(sizes.values()):,} parameters")
    return "\n".join(lines)
