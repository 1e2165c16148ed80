"""Finding the dict of tensors in what a training program has saved: dicts inside dicts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mg.weights.inert_names import Inert

__all__ = ["WRAPPER_KEYS", "names_under", "select_tensors"]

logger = logging.getLogger("mg")

Leaf = TypeVar("Leaf")

# Where programs put a network's weights. What lies under other keys (optimisers, discriminators)
# is never taken unless it is asked for.
WRAPPER_KEYS = (
    "state_dict",
    "model_state_dict",
    "ema_state_dict",
    "model",
    "gen_model",
    "ema_model",
    "model_ema",
    "ema",
    "module",
    "net",
    "network",
    "generator",
    "params",
    "params_ema",
    "weights",
    "vae",
)
# Of several sets of weights, those averaged over training are the ones that are meant to be used.
AVERAGED_KEYS = ("ema_state_dict", "params_ema", "ema_model", "model_ema", "ema")
MAX_DEPTH = 8
MAX_ITEMS = 100_000  # of the state dict
MAX_LOOKED_AT = 400_000  # items, while looking for it
MAX_NAME_LENGTH = 512
NUM_LISTED = 8


def select_tensors(tree: Any, leaf_type: type[Leaf], *, key: str | None = None) -> dict[str, Leaf]:
    """Return the tensors of a saved object by name, in its order.

    If a dict has tensors under one of `WRAPPER_KEYS`, that is where the weights are, and the same
    question is asked of it. Otherwise it is the state dict itself. Of several sets of weights the
    one under one of `AVERAGED_KEYS` is taken. Names of dicts that remain inside it are joined with
    dots. What is left out is logged.

    Args:
        tree: dicts, lists and anything else, as saved.
        leaf_type: the type of a tensor.
        key: the dict to begin with instead of the whole, such as `ema_state_dict`.

    Raises:
        ValueError: several candidates of which none is an average, no tensors, no such key, or more
            dicts inside dicts, items or longer names than a state dict has.
    """
    if isinstance(tree, leaf_type):
        raise ValueError("it holds a single tensor without a name, not a state dict")
    begin = [] if key is None else [key]
    tree, path, left_out = _unwrap(tree if key is None else _look_up(tree, key), leaf_type, begin)
    tensors: dict[str, Leaf] = {}
    for name, value in _walk(tree):
        if not isinstance(value, leaf_type):
            left_out.append(_described(f"{path}.{name}" if path else name, value))
        elif name in tensors:
            raise ValueError(f"it holds two tensors called {name!r}")
        else:
            tensors[name] = value
    if not tensors:
        raise ValueError(f"it holds no tensors{f' under key={key!r}' if key else ''}")
    if left_out:
        logger.info("left out of the checkpoint: %s", _listed(left_out))
    return tensors


def _unwrap(tree: Any, leaf_type: type, begin: list[str]) -> tuple[Any, str, list[str]]:
    """Return the dict that holds the weights, where it was found, and what lies beside it."""
    path, left_out = [*begin], []
    budget = MAX_LOOKED_AT
    while isinstance(tree, dict):
        wrappers = []
        for key in WRAPPER_KEYS:
            found, budget = _look_for_leaf(tree.get(key), leaf_type, budget)
            wrappers += [key] if found else []
        if not wrappers:
            break
        if len(path) == MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_DEPTH} dicts inside one another")
        chosen = _choose(wrappers, path)
        left_out += [
            _described(".".join([*path, str(key)[:MAX_NAME_LENGTH]]), value)
            for key, value in tree.items()
            if key != chosen
        ]
        path.append(chosen)
        tree = tree[chosen]
    return tree, ".".join(path), left_out


def _choose(wrappers: list[str], path: list[str]) -> str:
    """Return the key of the weights to take: the only one, or that of the averaged ones."""
    if len(wrappers) == 1:
        return wrappers[0]
    keys = [".".join([*path, key]) for key in wrappers]
    averaged = [key for key in wrappers if key in AVERAGED_KEYS]
    if len(averaged) != 1:
        first = ".".join([*path, (averaged or wrappers)[0]])
        raise ValueError(
            f"it holds several sets of weights: {', '.join(keys)}; say which with key={first!r}"
        )
    others = ".".join([*path, next(key for key in wrappers if key != averaged[0])])
    logger.info(
        "of the sets of weights %s the averaged ones are taken, %s (key=%r takes others)",
        ", ".join(keys),
        averaged[0],
        others,
    )
    return averaged[0]


def _look_for_leaf(value: Any, leaf_type: type, budget: int) -> tuple[bool, int]:
    """Return whether a dict has a tensor at any depth, and how many items may still be looked at.

    Raises:
        ValueError: more items than `budget`; a small file may repeat a large dict many times.
    """
    if not isinstance(value, dict):
        return False, budget
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        budget -= len(holder)
        if budget < 0:
            raise ValueError(f"it has more than {MAX_LOOKED_AT} items in dicts inside one another")
        items = holder.values() if isinstance(holder, dict) else holder
        if any(isinstance(item, leaf_type) for item in items):
            return True, budget
        waiting += [item for item in items if isinstance(item, dict | list)]
    return False, budget


def _described(name: str, value: Any) -> str:
    return f"{name} ({value.name})" if isinstance(value, Inert) else name


def _look_up(tree: Any, key: str) -> Any:
    """Return what lies under `key`, whose parts may themselves have dots in them."""
    if not isinstance(tree, dict):
        raise ValueError(f"it holds no dict in which to look for key={key!r}")
    for name, value in tree.items():
        if str(name) == key:
            return value
        if key.startswith(f"{name}.") and isinstance(value, dict):
            return _look_up(value, key.removeprefix(f"{name}."))
    return names_under({str(name): value for name, value in tree.items()}, key)


def names_under(items: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the items whose names begin with `key` and a dot, under what follows.

    Raises:
        ValueError: there are none.
    """
    found = {
        name.removeprefix(f"{key}."): value
        for name, value in items.items()
        if name.startswith(f"{key}.")
    }
    if not found:
        begins = list(dict.fromkeys(name.split(".", 1)[0] for name in items))
        raise ValueError(f"it has no key={key!r}; there are {_listed(begins)}")
    return found


def _walk(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of everything in dicts inside dicts that is not itself a dict or list.

    Raises:
        ValueError: too deep (a dict may contain itself), too many items (the same dict may be
            repeated again and again), or a name that is too long.
    """
    waiting, num_items = [("", 0, tree)], 0
    while waiting:
        name, depth, value = waiting.pop()
        if not isinstance(value, dict | list):
            yield name, value
            continue
        # The limits come before the items: a small file may repeat a large dict many times.
        num_items += len(value)
        if depth == MAX_DEPTH or num_items > MAX_ITEMS:
            raise ValueError(
                f"it has more than {MAX_DEPTH} dicts inside one another, or {MAX_ITEMS} items"
            )
        items = value.items() if isinstance(value, dict) else enumerate(value)
        prefix = name + "." if depth else ""
        inner = [(f"{prefix}{key}", depth + 1, item) for key, item in items]
        too_long = next((name for name, _, _ in inner if len(name) > MAX_NAME_LENGTH), None)
        if too_long is not None:
            raise ValueError(f"it has a name of {len(too_long)} characters")
        waiting += reversed(inner)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:MAX_NAME_LENGTH] for name in names[:NUM_LISTED])
    return shown + (f", and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else "")
