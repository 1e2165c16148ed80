"""Stand-ins for operators of MindSpore's mint layer that have no, or a wrong, kernel on CPU.

mindone's networks are written for Ascend: they call `mindspore.mint`, about half of whose operators
CPUs lack (MindSpore 2.7 to 2.10). `install_stand_ins` replaces those that the VAEs, transformers
and text encoders need by the same thing made of operators that CPUs have, forward and backward,
in both modes. The numbers are those of the originals; only speed and memory differ.

The replacement is for the whole process. Code of this project does not depend on it: it keeps to
`mindspore.nn` and `mindspore.ops`, which run everywhere.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, mint, nn, ops
from mindspore.mint.nn import functional

from mg.device import runs_on_cpu

__all__ = ["install_stand_ins"]


def install_stand_ins() -> bool:
    """Replace, if the device is CPU, what CPUs lack; return whether it is.

    Can be called at any time and any number of times: names that mindone's modules have bound
    already are replaced too, and modules imported later find the stand-ins. On Ascend and GPU
    nothing changes.
    """
    if not runs_on_cpu():
        return False
    for module in _modules_to_search():
        for name, value in list(vars(module).items()):
            original_and_stand_in = _REPLACED.get(id(value))
            if original_and_stand_in is not None:
                setattr(module, name, original_and_stand_in[1])
    for cell_class, construct in _CONSTRUCTS.items():
        cell_class.construct = construct
    for name, method in _TENSOR_METHODS.items():
        setattr(Tensor, name, method)
    _mend_attention_masks()
    return True


def _modules_to_search() -> list[Any]:
    """Return mint's modules and all of mindone's that have been imported."""
    mindone = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("mindone.") and module is not None
    ]
    return [mint, functional, *mindone]


# Convolutions: Conv2DExt and Conv3DExt have no kernel. ops.conv2d and ops.conv3d do.


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """mint.nn.functional.conv2d: Conv2DExt has no kernel."""
    rank = 2
    mode, amount = _conv_padding(padding, rank)
    stride, dilation = _as_tuple(stride, rank), _as_tuple(dilation, rank)
    return ops.conv2d(input, weight, bias, stride, mode, amount, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """mint.nn.functional.conv3d: Conv3DExt has no kernel."""
    rank = 3
    mode, amount = _conv_padding(padding, rank)
    stride, dilation = _as_tuple(stride, rank), _as_tuple(dilation, rank)
    return ops.conv3d(input, weight, bias, stride, mode, amount, dilation, groups)


def _conv_padding(padding: int | Sequence[int] | str, rank: int) -> tuple[str, Any]:
    """Return `pad_mode` and `padding` as ops.conv2d and ops.conv3d take them."""
    if isinstance(padding, str):  # "same" or "valid"
        return padding, 0
    return "pad", _as_tuple(padding, rank)


def _as_tuple(value: int | Sequence[int], length: int) -> tuple[int, ...]:
    return (value,) * length if isinstance(value, int) else tuple(value)


def _conv2d_construct(self, input):
    """mint.nn.Conv2d, which calls the primitive Conv2DExt directly."""
    if self.padding_mode == "zeros":
        return conv2d(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
    input = pad(input, self._reversed_padding, mode=self.padding_mode)
    return conv2d(input, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _conv3d_construct(self, input):
    """mint.nn.Conv3d, which calls the primitive Conv3DExt directly."""
    if self.padding_mode == "zeros":
        return conv3d(
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
    input = pad(input, self._reversed_padding, mode=self.padding_mode)
    return conv3d(input, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """mint.nn.functional.pad: no kernel; replicating in graph mode ends the process."""
    if mode != "replicate":
        return ops.pad(input, list(pad), mode, value)
    # ops.pad replicates too, in eight times the time.
    for i in range(len(pad) // 2):
        input = _repeat_ends(input, input.ndim - 1 - i, pad[2 * i], pad[2 * i + 1])
    return input


def _repeat_ends(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Return x with its first and last slice along an axis repeated (not less than 0 times)."""
    if before == 0 and after == 0:
        return x
    size = x.shape[axis]
    first = _slice(x, axis, 0, 1)
    last = _slice(x, axis, size - 1, size)
    return ops.concat([first] * before + [x] + [last] * after, axis=axis)


def _slice(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop)
    return x[tuple(index)]


# Layers of transformers and text encoders.


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """mint.nn.functional.layer_norm: LayerNormExt has no kernel."""
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, True)
    normed = centred / ops.sqrt((centred * centred).mean(axes, True) + eps)
    if weight is not None:
        normed = normed * weight
    return normed if bias is None else normed + bias


def _layer_norm_construct(self, input):
    """mint.nn.LayerNorm, which calls LayerNormExt through ops.layer_norm."""
    return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """mint.nn.functional.gelu: GeluExt has no kernel."""
    return ops.gelu(input, approximate)


def tanh(input: Tensor) -> Tensor:
    """mint.tanh: its CPU kernel is off by up to 1e-4; T5's gelu_new calls it."""
    # exp(2x) - 1, where beyond 10 nothing is left to be seen in float32.
    grown = ops.expm1(2 * ops.clamp(input.astype(ms.float32), -10.0, 10.0))
    return (grown / (grown + 2)).astype(input.dtype)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """mint.nn.functional.embedding: no kernel, forward in PyNative and backward in both modes."""
    if max_norm is not None or scale_grad_by_freq:
        raise ValueError("embedding: max_norm and scale_grad_by_freq are not supported on CPU")
    rows = ops.gather(weight, input, 0)
    if padding_idx is None:
        return rows
    is_padding = (input == padding_idx % weight.shape[0]).expand_dims(-1)
    return ops.where(is_padding, ops.stop_gradient(rows), rows)


def _embedding_construct(self, input):
    """mint.nn.Embedding, which calls EmbeddingDenseBackward through ops.embedding."""
    return embedding(input, self.weight, self.padding_idx, self.max_norm)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """mint.nn.functional.dropout: DropoutExt has no kernel."""
    if inplace:
        raise ValueError("dropout: inplace=True is not supported on CPU")
    return ops.dropout(input, p=p, training=True) if training and p > 0 else input


def _dropout_construct(self, input):
    """mint.nn.Dropout, which calls DropoutExt directly."""
    return dropout(input, self.p, self.training)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta=1, alpha=1) -> Tensor:
    """mint.baddbmm: no kernel."""
    return beta * input + alpha * ops.bmm(batch1, batch2)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """mint.outer: no kernel."""
    return input.reshape(-1, 1) * vec2.reshape(1, -1)


# Taking apart and putting together.


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple:
    """mint.split: in PyNative (2.10.0) its gradient is wrong where a piece is concatenated."""
    size = tensor.shape[dim]
    sections = split_size_or_sections
    if isinstance(sections, int):
        sections = [min(sections, size - start) for start in range(0, size, sections)]
    pieces, start = [], 0
    for section in sections:
        pieces.append(_slice(tensor, dim, start, start + section))
        start = start + section
    return tuple(pieces)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple:
    """mint.chunk: fails in graph mode (2.7.2)."""
    return split(input, -(-input.shape[dim] // chunks), dim)


def unbind(input: Tensor, dim: int = 0) -> tuple:
    """mint.unbind and Tensor.unbind: the gradient fails."""
    return tuple(piece.squeeze(dim) for piece in split(input, 1, dim))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """mint.stack: StackExt has no kernel."""
    return ops.stack(list(tensors), dim)


def repeat_interleave(
    input: Tensor, repeats: int, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """mint.repeat_interleave and Tensor.repeat_interleave: no kernel."""
    if dim is None:
        input, dim = input.reshape(-1), 0
    return ops.repeat_interleave(input, repeats, dim)


def clone(input: Tensor) -> Tensor:
    """mint.clone and Tensor.clone: Clone has no kernel."""
    return input.copy()


# Making tensors. `device` is left out: there is only this one.


def arange(start=0, end=None, step=1, *, dtype=None, device=None) -> Tensor:
    """mint.arange: no kernel in PyNative."""
    return ops.arange(start, end, step, dtype=dtype)


def full(size: Sequence[int], fill_value: float, *, dtype=None, device=None) -> Tensor:
    """mint.full: no kernel in PyNative."""
    return ops.full(size, fill_value, dtype=dtype)


def zeros_like(input: Tensor, *, dtype=None, device=None) -> Tensor:
    """mint.zeros_like: no kernel in PyNative."""
    return ops.zeros_like(input, dtype=dtype)


def linspace(start: float, end: float, steps: int, *, dtype=None, device=None) -> Tensor:
    """mint.linspace: no kernel."""
    values = ops.linspace(start, end, steps)
    return values if dtype is None else values.astype(dtype)


def randn(*size: int | Sequence[int], generator=None, dtype=None, device=None) -> Tensor:
    """mint.randn: no kernel; draws from the seed of `mindspore.set_seed`."""
    if generator is not None:
        raise ValueError("randn: a generator is not supported on CPU; use mindspore.set_seed")
    shape = tuple(size[0]) if isinstance(size[0], list | tuple) else size
    return ops.standard_normal(shape).astype(ms.float32 if dtype is None else dtype)


# mindone's Attention, where flash attention is not available: it flattens batch and heads of the
# queries but not of a mask with 4 axes, and baddbmm then refuses (mindone 0.5.0).


def _mend_attention_masks() -> None:
    from mindone.diffusers.models.attention_processor import Attention

    original = Attention.get_attention_scores
    if getattr(original, "takes_masks_of_4_axes", False):
        return

    def get_attention_scores(self, query, key, attention_mask=None):
        if attention_mask is not None and attention_mask.ndim == 4:
            attention_mask = _flatten_heads(attention_mask, query, key)
        return original(self, query, key, attention_mask)

    get_attention_scores.takes_masks_of_4_axes = True
    Attention.get_attention_scores = get_attention_scores


def _flatten_heads(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return a mask (B, 1 or heads, 1 or Q, K) as (B * heads, Q, K), as the queries are."""
    num_queries, num_keys, batch = query.shape[1], key.shape[1], mask.shape[0]
    mask = ops.broadcast_to(mask, (batch, query.shape[0] // batch, num_queries, num_keys))
    return mask.reshape(-1, num_queries, num_keys)  # (B * heads, Q, K)


def _originals(stand_ins: Sequence[Callable]) -> dict[int, tuple[Any, Callable]]:
    """Return {identity of an original: (the original, its stand-in)}; both have the same name.

    Keeping the originals keeps their identities from being given to other objects.
    """
    table = {}
    for stand_in in stand_ins:
        for module in (mint, functional):
            original = getattr(module, stand_in.__name__, None)
            if original is not None:
                table[id(original)] = (original, stand_in)
    return table


_REPLACED = _originals(
    [
        arange,
        baddbmm,
        chunk,
        clone,
        conv2d,
        conv3d,
        dropout,
        embedding,
        full,
        gelu,
        layer_norm,
        linspace,
        outer,
        pad,
        randn,
        repeat_interleave,
        split,
        stack,
        tanh,
        unbind,
        zeros_like,
    ]
)
_CONSTRUCTS: dict[type[nn.Cell], Callable] = {
    mint.nn.Conv2d: _conv2d_construct,
    mint.nn.Conv3d: _conv3d_construct,
    mint.nn.Dropout: _dropout_construct,
    mint.nn.Embedding: _embedding_construct,
    mint.nn.LayerNorm: _layer_norm_construct,
}
_TENSOR_METHODS: dict[str, Callable] = {
    "clone": clone,
    "repeat_interleave": repeat_interleave,
    "unbind": unbind,
}
