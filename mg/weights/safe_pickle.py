"""Reading a pickle as data: a small stack machine that can name nothing outside a given table.

Python's own `pickle` calls whatever a file names. This machine knows the instructions that plain
containers, numbers, texts and tensors need (protocols 2 to 5; pickletools in Python's library
describes each), looks names up in a table of the caller, and refuses everything else. What training
programs keep beside weights (`mg.weights.inert_names`) becomes a placeholder, whatever is done with
it. What the machine builds costs no more than the file itself is long, times a constant.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mg.weights.inert_names import Inert, inert

__all__ = ["MAX_INSTRUCTIONS", "Function", "read_pickle"]

MAX_INSTRUCTIONS = 1_000_000  # a state dict needs 17 to 35 per tensor
MAX_NAME_BYTES = 256
MAX_INTEGER_BYTES = 32  # random generators have states of 16
PROTOCOLS = range(2, 6)
STOP = ord(".")


@dataclass(frozen=True)
class Function:
    """A function of ours that stands for what a pickle names and wants to call."""

    call: Callable[..., Any]


def read_pickle(
    data: bytes,
    names: Mapping[tuple[str, str], Any],
    *,
    load_persistent: Callable[[Any], Any],
) -> Any:
    """Return the object that a pickle describes, made of dicts, lists, tuples, texts and numbers.

    Args:
        data: the whole pickle.
        names: what each (module, name) stands for: a `Function`, or any value. Beside these only
            what `mg.weights.inert_names` knows can be named. Nothing but a `Function` is called.
        load_persistent: gets what the pickle states instead of an object that is kept outside of
            it (with PyTorch, a storage); returns what shall stand there.

    Raises:
        ValueError: a name outside the table, an instruction that is not known here, a damaged or
            truncated pickle, or one that is too large; or what the functions raise.
    """
    return _Machine(data, names, load_persistent).run()


class _Mark:
    """What the instruction MARK leaves on the stack."""


MARK = _Mark()


class _Machine:
    def __init__(
        self,
        data: bytes,
        names: Mapping[tuple[str, str], Any],
        load_persistent: Callable[[Any], Any],
    ) -> None:
        self.data = data
        self.position = 0
        self.names = names
        self.load_persistent = load_persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return what is on the stack at the instruction STOP."""
        for _ in range(MAX_INSTRUCTIONS):
            code = self._byte()
            if code == STOP:
                return self._pop()
            action = ACTIONS[code]
            if action is None:
                raise ValueError(
                    f"its pickle has the instruction {bytes([code])!r} at byte "
                    f"{self.position - 1}, which no state dict needs; it is damaged, or made to do "
                    "harm"
                )
            action(self)
        raise ValueError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")

    # --- reading arguments ---

    def _byte(self) -> int:
        if self.position >= len(self.data):
            raise ValueError(f"its pickle ends in the middle, at byte {len(self.data)}")
        self.position += 1
        return self.data[self.position - 1]

    def _bytes(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise ValueError(f"its pickle ends in the middle, at byte {len(self.data)}")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def _number(self, code: str) -> Any:
        """Return one number of the `struct` format `code`."""
        return struct.unpack("<" + code, self._bytes(struct.calcsize("<" + code)))[0]

    def _text(self, num_bytes: int) -> str:
        try:
            return self._bytes(num_bytes).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"its pickle has no text before byte {self.position}") from error

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + MAX_NAME_BYTES)
        if end < 0:
            raise ValueError(f"its pickle has no name at byte {self.position}")
        line = self._text(end - self.position)
        self.position += 1
        return line

    # --- the stack ---

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self) -> Any:
        if not self.stack or self.stack[-1] is MARK:
            raise ValueError(f"its pickle is damaged: nothing to take at byte {self.position}")
        return self.stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        """Return, and remove, everything above the last MARK, and the MARK."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError(f"its pickle is damaged: no mark before byte {self.position}")

    def _top(self, kind: type) -> Any:
        """Return the top of the stack: a container that the pickle made, or a placeholder."""
        if not self.stack or type(self.stack[-1]) not in (kind, Inert):
            raise ValueError(f"its pickle is damaged: no {kind.__name__} at byte {self.position}")
        return self.stack[-1]

    # --- instructions ---

    def _protocol(self) -> None:
        protocol = self._byte()
        if protocol not in PROTOCOLS:
            raise ValueError(f"its pickle has protocol {protocol}; 2 to 5 are known")

    def _integer(self) -> None:
        num_bytes = self._byte()
        if num_bytes > MAX_INTEGER_BYTES:
            raise ValueError(f"its pickle has an integer of {num_bytes} bytes")
        self._push(int.from_bytes(self._bytes(num_bytes), "little", signed=True))

    def _tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(values)))

    def _append(self, values: list[Any]) -> None:
        target = self._top(list)
        if type(target) is list:
            target.extend(values)

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        if len(values) % 2:
            raise ValueError(f"its pickle is damaged: a key without value at byte {self.position}")
        if type(target) is Inert:
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Simple keys only: the hash of deeply nested tuples overflows the stack.
            if not isinstance(key, str | int | float | None):
                raise ValueError(f"its pickle has a {type(key).__name__} as the key of a dict")
            if key in target:
                raise ValueError(f"its pickle sets the key {key!r} of a dict twice")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _memoize(self, index: int) -> None:
        value = self._pop()
        self._push(value)
        self.memo[index] = value

    def _recall(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"its pickle is damaged: nothing is kept under {index}")
        self._push(self.memo[index])

    def _name(self, module: Any, name: Any) -> None:
        found = None
        if isinstance(module, str) and isinstance(name, str):
            found = self.names.get((module, name)) or inert(module, name)
        if found is None:
            raise ValueError(
                f"it names {_shown(module)}.{_shown(name)}, which is not on the list of what "
                "training programs store with weights, and nothing else is loaded (a pickle can "
                "run programs); where the file was made, save the network's state dict alone"
            )
        self._push(found)

    def _stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is Inert:
            self._push(function)
            return
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise ValueError(f"its pickle calls what is not a function, at byte {self.position}")
        try:
            self._push(function.call(*arguments))
        except TypeError as error:
            raise ValueError(f"its pickle calls with wrong arguments: {error}") from error

    def _new(self, num_arguments: int) -> None:
        for _ in range(num_arguments):
            self._pop()
        kind = self._pop()
        if type(kind) is not Inert:
            raise ValueError(f"its pickle makes an object of no class, at byte {self.position}")
        self._push(kind)

    def _build(self) -> None:
        # Attributes of an OrderedDict: PyTorch keeps version numbers there (`_metadata`).
        self._pop()
        self._top(dict)

    def _persistent(self) -> None:
        self._push(self.load_persistent(self._pop()))


def _shown(part: Any) -> str:
    """Return a name from the file for a message, so that it cannot steer the terminal."""
    if not isinstance(part, str):
        return type(part).__name__
    return part[:60] if part.isprintable() else ascii(part[:60])


BY_CODE: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine._protocol,
    b"\x95": lambda machine: machine._bytes(8),  # FRAME: only a hint for readers of streams
    b"(": lambda machine: machine._push(MARK),
    b"N": lambda machine: machine._push(None),
    b"\x88": lambda machine: machine._push(True),
    b"\x89": lambda machine: machine._push(False),
    b"J": lambda machine: machine._push(machine._number("i")),
    b"K": lambda machine: machine._push(machine._byte()),
    b"M": lambda machine: machine._push(machine._number("H")),
    b"\x8a": _Machine._integer,
    b"G": lambda machine: machine._push(struct.unpack(">d", machine._bytes(8))[0]),
    b"X": lambda machine: machine._push(machine._text(machine._number("I"))),
    b"\x8c": lambda machine: machine._push(machine._text(machine._byte())),
    b"B": lambda machine: machine._push(machine._bytes(machine._number("I"))),
    b"C": lambda machine: machine._push(machine._bytes(machine._byte())),
    b")": lambda machine: machine._push(()),
    b"t": lambda machine: machine._push(tuple(machine._pop_to_mark())),
    b"\x85": lambda machine: machine._tuple(1),
    b"\x86": lambda machine: machine._tuple(2),
    b"\x87": lambda machine: machine._tuple(3),
    b"]": lambda machine: machine._push([]),
    b"a": lambda machine: machine._append([machine._pop()]),
    b"e": lambda machine: machine._append(machine._pop_to_mark()),
    b"}": lambda machine: machine._push({}),
    b"s": _Machine._set_item,
    b"u": lambda machine: machine._set_items(machine._pop_to_mark()),
    b"q": lambda machine: machine._memoize(machine._byte()),
    b"r": lambda machine: machine._memoize(machine._number("I")),
    b"\x94": lambda machine: machine._memoize(len(machine.memo)),
    b"h": lambda machine: machine._recall(machine._byte()),
    b"j": lambda machine: machine._recall(machine._number("I")),
    b"c": lambda machine: machine._name(machine._line(), machine._line()),
    b"\x93": _Machine._stack_name,
    b"R": _Machine._call,
    b"\x81": lambda machine: machine._new(1),
    b"\x92": lambda machine: machine._new(2),
    b"b": _Machine._build,
    b"Q": _Machine._persistent,
}
ACTIONS = [BY_CODE.get(bytes([code])) for code in range(256)]
