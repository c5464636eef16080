"""Activations recomputed in the backward pass (Chen et al., 2016), where the graph of one sample does not fit.

A block keeps its inputs only; its own activations are computed a second time when the backward pass comes to it. What
it computes, and so every gradient, stays the same. Weights take no gradients here, which keeps this short;
torch.utils.checkpoint would import a compiler of 160 MB, when memory is short already.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_flatten, tree_unflatten

from caa_cli.smoothing.change_class import change_class, class_before, set_class
from caa_cli.smoothing.in_place import differentiating

# A Sequential of at least so many single layers is cut up.
_LONG = 6


def recompute_activations(model: nn.Module, example: Tensor) -> bool:
    """Make the blocks of `model` recompute activations where gradients are wanted. Returns whether any does so newly.

    model: its weights take no gradients.  example: an input, (1, *input_shape). A block is an element of a Sequential
    or ModuleList that has parts of its own (a residual block, a layer of a transformer); a long Sequential of single
    layers, such as a denoiser, is cut into stretches. Of blocks within blocks only those of one level recompute, the
    level that takes the least memory: one within another would be computed three times. Called again, another level
    does too, for less memory yet. Left as they are: blocks that change their inputs in place, so that they can't be
    computed a second time, and blocks that give other things than tensors.
    """
    parts = {*_blocks(model), *filter(_is_long, model.modules())}
    before = {part for part in parts if isinstance(part, _Changed)}
    with _unchanged(before):
        sizes = _measure(model, example, parts - before)
    blocks = _one_level(model, sizes)
    for block in blocks:
        change_class(block, _InStretches if _is_long(block) else _Recomputing)
    return bool(blocks)


def graph_bytes(model: nn.Module, example: Tensor) -> int:
    """Bytes, at most, that a backward pass of one input keeps. Counted without keeping them, so nothing runs out.

    A tensor that two distant layers keep is counted twice. Raises CaaError for a model that changes its input.
    """
    kept = _Kept(model)
    with torch.enable_grad(), saved_tensors_hooks(kept.count, lambda _: example), differentiating():
        model(example.detach().requires_grad_(True))
    return kept.total


class _Kept:
    """Counts the bytes of the tensors that a graph keeps besides the weights of `model`."""

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        # The last ones are held here, so that their memory is not another tensor's yet.
        self._recent = deque[Tensor](maxlen=4)

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._weights:
            return
        if all(storage.data_ptr() != other.untyped_storage().data_ptr() for other in self._recent):
            self.total += storage.nbytes()
        self._recent.append(tensor.detach())


class _Changed(nn.Module):
    """The base of the classes that recompute. Classes, and not functions, as a copy of a model takes them with it."""


class _Recomputing(_Changed):
    def forward(self, *inputs: Any, **settings: Any) -> Any:
        return _recomputed(super().forward, inputs, settings)


class _InStretches(_Changed):
    """Recomputes n layers in √n stretches: about as many inputs are kept as activations are recomputed at a time."""

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
        computed = torch.autograd.grad([y for y, _ in given], wanted, [g for _, g in given], allow_unused=True)
        remaining = iter(computed)
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


@contextmanager
def _unchanged(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Within, these blocks keep their activations."""
    kinds = {block: type(block) for block in blocks}
    for block, kind in kinds.items():
        set_class(block, class_before(kind))
    try:
        yield
    finally:
        for block, kind in kinds.items():
            set_class(block, kind)


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


@dataclass
class _Size:
    """Bytes of a part: `graph` is what a backward pass keeps of it; where it recomputes, `kept`, and `again` more at
    the time that it does."""

    graph: int = 0
    kept: int = 0
    again: int = 0


def _one_level(model: nn.Module, sizes: dict[nn.Module, _Size]) -> list[nn.Module]:
    """The parts that are to recompute, none within another: those that take the least memory together."""

    def outermost(module: nn.Module) -> list[nn.Module]:
        """The parts in a module that are in no other part of it."""
        return [part for child in module.children() for part in ([child] if child in sizes else outermost(child))]

    def up_to(most: int, part: nn.Module) -> list[nn.Module]:
        """The part, or those within it if it takes more than `most` bytes at a time."""
        within = outermost(part) if sizes[part].again > most else []
        return [other for inner in within for other in up_to(most, inner)] or [part]

    def memory(parts: list[nn.Module]) -> int:
        saved = sum(sizes[part].graph - sizes[part].kept for part in parts)
        return max(sizes[part].again for part in parts) - saved

    top = [model] if model in sizes else outermost(model)
    limits = {size.again for size in sizes.values()}
    levels = ([other for part in top for other in up_to(most, part)] for most in limits)
    return min(levels, key=memory, default=[])


def _measure(model: nn.Module, example: Tensor, parts: set[nn.Module]) -> dict[nn.Module, _Size]:
    """The size of those parts that can recompute and save memory by it; from one pass."""
    kept, sizes = _Kept(model), {part: _Size() for part in parts}
    begun: dict[nn.Module, tuple[int, list[tuple[Tensor, int]]]] = {}

    def before(part: nn.Module, inputs: tuple[Any, ...], settings: dict[str, Any]) -> None:
        leaves, _ = tree_flatten((inputs, settings))
        begun[part] = kept.total, [(x, x._version) for x in leaves if isinstance(x, Tensor)]

    def after(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        total, versions = begun.pop(part)
        if any(x._version != version for x, version in versions) or not all(isinstance(y, Tensor) for y in outputs):
            sizes.pop(part, None)
        elif part in sizes:
            stretches = len(_stretches(list(part.children()))) if _is_long(part) else 1
            graph = kept.total - total
            sizes[part].graph += graph
            sizes[part].again = max(sizes[part].again, graph // stretches)
            sizes[part].kept += stretches * sum(x.untyped_storage().nbytes() for x, _ in versions)

    hooks = [part.register_forward_pre_hook(before, with_kwargs=True) for part in parts]
    hooks += [part.register_forward_hook(after) for part in parts]
    try:
        with torch.enable_grad(), saved_tensors_hooks(kept.count, lambda _: example):
            model(example.detach().requires_grad_(True))
    finally:
        for hook in hooks:
            hook.remove()
    return {part: size for part, size in sizes.items() if size.kept < size.graph}
