"""Activations recomputed in the backward pass (Chen et al., 2016), where the graph of one sample does not fit.

A block keeps its inputs only; its own activations are computed a second time when the backward pass comes to it. What
it computes, and so every gradient, stays the same. Weights take no gradients here, which keeps this short;
torch.utils.checkpoint would import a compiler of 160 MB, when memory is short already.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_flatten, tree_unflatten

# A Sequential of at least so many single layers is cut up.
_LONG = 6


def recompute_activations(model: nn.Module, example: Tensor) -> bool:
    """Make the blocks of `model` recompute activations where gradients are wanted. Returns whether any does so newly.

    model: its weights take no gradients.  example: an input, (1, *input_shape). A block is an element of a Sequential
    or ModuleList that has parts of its own (a residual block, a layer of a transformer), and may hold others; a long
    Sequential of single layers, such as a denoiser, is cut into stretches. Left as they are: blocks that change their
    inputs in place, so that they can't be computed a second time, and blocks that give other things than tensors.
    """
    parts = {*_blocks(model), *filter(_is_long, model.modules())}
    blocks = {part for part in parts if not isinstance(part, _Changed)}
    for block in blocks - _unsuitable(model, example, blocks):
        object.__setattr__(block, "__class__", _changed(type(block), _is_long(block)))
    return any(isinstance(block, _Changed) for block in blocks)


def graph_bytes(model: nn.Module, example: Tensor) -> int:
    """Bytes, at most, that a backward pass of one input keeps. Counted without keeping them, so nothing runs out.

    A tensor that two distant layers keep is counted twice.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    total, recent = 0, deque[Tensor](maxlen=4)

    def count(tensor: Tensor) -> None:
        nonlocal total
        place = tensor.untyped_storage().data_ptr()
        # The last ones are held here, so that their memory is not another tensor's yet.
        if place not in weights and all(place != other.untyped_storage().data_ptr() for other in recent):
            total += tensor.untyped_storage().nbytes()
        recent.append(tensor.detach())

    with torch.enable_grad(), saved_tensors_hooks(count, lambda _: example):
        model(example.detach().requires_grad_(True))
    return total


class _Changed(nn.Module):
    """The base of the classes that recompute. Classes, and not functions, as a copy of a model takes them with it."""


class _Recomputing(_Changed):
    def forward(self, *inputs: Any, **settings: Any) -> Any:
        return _recomputed(super().forward, inputs, settings)


class _InStretches(_Changed):
    """Of n layers √n stretches, so that about as many inputs are kept as activations are recomputed at a time."""

    def forward(self, x: Tensor) -> Tensor:
        for layers in _stretches(list(self.children())):
            x = _recomputed(nn.Sequential(*layers), (x,), {})
        return x


class _Recomputed(torch.autograd.Function):
    """`compute(*tensors)`, of which a graph keeps the tensors only."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Any], *tensors: Tensor) -> Any:
        ctx.compute = compute
        ctx.save_for_backward(*tensors)
        return compute(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        needed = ctx.needs_input_grad[1:]
        inputs = [x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            output = ctx.compute(*inputs)
        outputs = (output,) if isinstance(output, Tensor) else output
        given = [(y, g) for y, g in zip(outputs, gradients, strict=True) if y.requires_grad and g is not None]
        wanted = [x for x in inputs if x.requires_grad]
        found = torch.autograd.grad([y for y, _ in given], wanted, [g for _, g in given], allow_unused=True)
        remaining = iter(found)
        return None, *(next(remaining) if need else None for need in needed)


def _recomputed(compute: Callable[..., Any], inputs: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    """`compute(*inputs, **settings)`; where gradients are wanted, the graph keeps the tensors among these only."""
    if not torch.is_grad_enabled():
        return compute(*inputs, **settings)
    # Lists are copied on the way: a dense block goes on to append to the one that it gave a layer.
    leaves, structure = tree_flatten((inputs, settings))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    tensors = [leaves[place] for place in places]
    others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def on(*tensors: Tensor) -> Any:
        filled = list(others)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        inputs, settings = tree_unflatten(filled, structure)
        return compute(*inputs, **settings)

    return _Recomputed.apply(on, *tensors)


def _stretches(layers: list[nn.Module]) -> list[list[nn.Module]]:
    """The layers cut up; a stretch doesn't begin with one that works in place, which would change what is kept."""
    length, stretches = math.ceil(math.sqrt(len(layers))), [[layers[0]]]
    for layer in layers[1:]:
        if len(stretches[-1]) >= length and not getattr(layer, "inplace", False):
            stretches.append([])
        stretches[-1].append(layer)
    return stretches


def _changed(kind: type[nn.Module], long: bool) -> type[nn.Module]:
    return type(kind.__name__, (_InStretches if long else _Recomputing, kind), {"__module__": kind.__module__})


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    for parent in model.modules():
        if isinstance(parent, (nn.Sequential, nn.ModuleList)):
            yield from (part for part in parent.children() if next(part.children(), None) is not None)


def _is_long(part: nn.Module) -> bool:
    layers = list(part.children())
    return (
        isinstance(part, nn.Sequential)
        and len(layers) >= _LONG
        and not any(next(layer.children(), None) is not None for layer in layers)
    )


def _unsuitable(model: nn.Module, example: Tensor, parts: set[nn.Module]) -> set[nn.Module]:
    """Those of the parts that change a tensor they are given, or give other things than tensors; from one pass."""
    versions: dict[nn.Module, list[tuple[Tensor, int]]] = {}
    unsuitable: set[nn.Module] = set()

    def before(part: nn.Module, inputs: tuple[Any, ...], settings: dict[str, Any]) -> None:
        leaves, _ = tree_flatten((inputs, settings))
        versions[part] = [(x, x._version) for x in leaves if isinstance(x, Tensor)]

    def after(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        changed = any(x._version != version for x, version in versions.pop(part, []))
        if changed or not all(isinstance(y, Tensor) for y in outputs):
            unsuitable.add(part)

    hooks = [part.register_forward_pre_hook(before, with_kwargs=True) for part in parts]
    hooks += [part.register_forward_hook(after) for part in parts]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return unsuitable
