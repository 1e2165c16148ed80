"""YAML that others wrote, read within bounds: size, depth, aliases; each key once; regular files.

All YAML that comes from files goes through here. Every fault is a ValueError of one line.
"""

import math
import os
from typing import Any

import yaml

from mg.console import one_line
from mg.files import read_bytes

__all__ = ["MAX_BYTES", "parse_yaml", "read_yaml"]

MAX_BYTES = 256 << 10
MAX_DEPTH = 32
MAX_VALUES = 10_000  # keys and values, those that an alias repeats counted each time
MAX_NUMBER = 2**64
MAX_DIGITS = 40

# What PyYAML lets through of Python where a tag and its value disagree, as in `!!int ""`.
LEAKED = (AttributeError, IndexError, KeyError, TypeError, OverflowError)


def read_yaml(path: str | os.PathLike, *, finite: bool = True) -> Any:
    """Return the content of a YAML file; JSON is YAML.

    Args:
        path: of a regular file.
        finite: whether NaN and infinity are refused; False leaves that to who can name them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, more than 256 KiB, or as `parse_yaml`.
        OSError: it cannot be read.
    """
    return parse_yaml(read_bytes(path, max_bytes=MAX_BYTES), path, finite=finite)


def parse_yaml(text: str | bytes, place: str | os.PathLike, *, finite: bool = True) -> Any:
    """Return what a YAML text says; plain values only, as of the safe loader.

    Args:
        text: the whole of it; bytes are UTF-8.
        place: where it stands, for messages.
        finite: as in `read_yaml`.

    Raises:
        ValueError: no YAML; a key twice in one mapping; nested deeper than 32 levels; more than
            10,000 values, with what aliases repeat; a number that is not finite or beyond 2^64.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        content = yaml.load(text, Loader=_BoundedLoader if finite else _LoaderOfAnyNumbers)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8: {error.reason}") from None
    except (yaml.YAMLError, ValueError, *LEAKED) as error:
        raise ValueError(f"{place} is not YAML that can be read: {one_line(error)}") from None
    return content


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops as soon as a text exceeds the bounds."""

    finite = True

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._num_values = 0
        # Values that each anchor stands for. An anchor is known here once it is complete, so an
        # alias inside its own anchor is none.
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Return the next node, counted."""
        event = self.peek_event()
        before = self._num_values
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise ValueError(f"the anchor {one_line(event.anchor)!r} holds itself")
            self._count(self._sizes.get(event.anchor, 1))
            return super().compose_node(parent, index)
        self._count(1)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"it is nested too deeply: more than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._num_values - before
        return node

    def _count(self, num_values: int) -> None:
        self._num_values += num_values
        if self._num_values > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values, counting what aliases repeat")

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Return a mapping, each of whose keys stands there once."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise ValueError(f"it has {one_line(key.value)!r} twice (line {line})")
                seen.add((key.tag, key.value))
        return node

    def construct_scalar_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number, which is finite and not beyond 2^64."""
        is_whole = node.tag.endswith(":int")
        read = self.construct_yaml_int if is_whole else self.construct_yaml_float
        if isinstance(node, yaml.ScalarNode) and len(node.value) > MAX_DIGITS:
            raise ValueError(f"a number has {len(node.value)} digits; at most {MAX_DIGITS} are due")
        number = read(node)
        if (self.finite and not math.isfinite(number)) or (is_whole and abs(number) > MAX_NUMBER):
            raise ValueError(f"the number {node.value} is not finite, or beyond 2^64")
        return number


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _BoundedLoader.add_constructor(_tag, _BoundedLoader.construct_scalar_number)


class _LoaderOfAnyNumbers(_BoundedLoader):
    """The same for files whose numbers are checked by name."""

    finite = False
