"""Peak activations measured on a network itself: a traced graph, walked under a memory model.

Independent of `isonas.cost`: shapes come from running the traced graph on meta tensors, lifetimes
from its edges, and each memory model is a rule about which results need memory of their own.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from isonas.cost import MemoryModel


@dataclass(frozen=True)
class Step:
    """One operator as a runtime would run it: tensors by name, `scratch` elements of its own."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    scratch: int = 0


@dataclass(frozen=True)
class Graph:
    """The operators in the order of execution, and the elements of each tensor at batch 1."""

    image: str
    steps: tuple[Step, ...]
    elements: dict[str, int]
    plane: dict[str, int]
    """Elements of one channel of each tensor."""


def trace(network: nn.Module, input_side: int) -> Graph:
    """The graph of a network for one (1, 3, input_side, input_side) image, on meta tensors.

    Raises ValueError for an operator it does not know: nothing is counted as free by default.
    """
    module = fx.symbolic_trace(copy.deepcopy(network).eval().to("meta"))
    ShapeProp(module).propagate(torch.empty(1, 3, input_side, input_side, device="meta"))
    names: dict[fx.Node, str] = {}
    steps: list[Step] = []
    elements: dict[str, int] = {}
    plane: dict[str, int] = {}
    image = ""
    for node in module.graph.nodes:
        if node.op == "output":
            continue
        sources = tuple(names[source] for source in node.all_input_nodes)
        if node.op == "placeholder":
            image = names[node] = node.name
        else:
            kind = _kind(node, module)
            if kind == "free":
                names[node] = sources[0]
                continue
            names[node] = node.name
            steps.append(Step(node.name, kind, sources, node.name))
        shape = node.meta["tensor_meta"].shape
        elements[node.name] = prod(shape)
        plane[node.name] = prod(shape[2:])
    return Graph(image, tuple(steps), elements, plane)


def peak_activations(graph: Graph, model: MemoryModel, *, with_input: bool = True) -> int:
    """Peak activations of a traced network in elements, under a memory model.

    Without the input, every operator up to and including the first convolution is left out; its
    output stays.
    """
    steps, given = list(graph.steps), graph.image
    if not with_input:
        first = next(index for index, step in enumerate(steps) if step.kind == "conv")
        given = steps[first].output
        steps = steps[first + 1 :]
    if model is MemoryModel.LARGEST:
        return max(graph.elements[name] for name in (given, *(step.output for step in steps)))
    aliases = _aliases(steps, model)
    last_use = {
        aliases(name): index for index, step in enumerate(steps) for name in (*step.inputs, step.output)
    }
    if model is MemoryModel.LITERT and with_input:
        last_use[given] = len(steps)
    alive, peak = {given}, 0
    for index, step in enumerate(steps):
        output = aliases(step.output)
        alive.add(output)
        in_use = {aliases(name) for name in step.inputs} | {output}
        counted = in_use if model is MemoryModel.PAPER else alive
        peak = max(peak, sum(graph.elements[name] for name in counted) + _scratch(step, graph, model))
        alive = {name for name in alive if last_use[name] > index}
    return peak


def operators(graph: Graph) -> int:
    """Operators of the TensorFlow Lite graph: batch norm and ReLU are fused, all else counts."""
    return sum(step.kind != "relu" for step in graph.steps)


_FUSED = (MemoryModel.PAPER, MemoryModel.FUSED, MemoryModel.INPLACE)


def _aliases(steps: Sequence[Step], model: MemoryModel) -> Callable[[str], str]:
    """Which tensor's memory each result lives in."""
    owner: dict[str, str] = {}

    def find(name: str) -> str:
        while name in owner:
            name = owner[name]
        return name

    for index, step in enumerate(steps):
        activation = step.kind in ("h-swish", "relu", "hard-sigmoid")
        # TensorFlow Lite fuses ReLU alone into the operator before it.
        fused = step.kind == "relu" or (activation and model in _FUSED)
        in_place = model is MemoryModel.INPLACE and step.kind in ("depthwise", "scale")
        if fused or in_place:
            owner[step.output] = find(step.inputs[0])
        if model is MemoryModel.INPLACE and step.kind == "add":
            # The projection accumulates into the residual's buffer, so its result is that buffer.
            projection = steps[index - 1]
            residual = next(name for name in step.inputs if name != projection.output)
            owner[projection.output] = find(residual)
            owner[step.output] = find(residual)
    return find


def _scratch(step: Step, graph: Graph, model: MemoryModel) -> int:
    if model is MemoryModel.INPLACE and step.kind == "depthwise":
        return graph.plane[step.output]
    if model is MemoryModel.EXECUTORCH and step.kind == "h-swish":
        # x, x + 3 and its clamped copy are alive together before the product is written.
        return graph.elements[step.output]
    return 0


def _kind(node: fx.Node, module: fx.GraphModule) -> str:
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, nn.Conv2d):
            return "depthwise" if layer.groups > 1 else "conv"
        if (kind := _MODULES.get(type(layer))) is not None:
            return kind
    if node.op == "call_function" and node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target]
    if node.op == "call_method" and node.target == "mean":
        return "pool"
    raise ValueError(f"memory of {node.op} {node.target} is not known")


# Batch norm is folded into the convolution before it under every model.
_MODULES: dict[type[nn.Module], str] = {
    nn.BatchNorm2d: "free",
    nn.Identity: "free",
    nn.Hardswish: "h-swish",
    nn.ReLU: "relu",
    nn.Hardsigmoid: "hard-sigmoid",
    nn.AvgPool2d: "pool",
    nn.Linear: "fc",
}
_FUNCTIONS: dict[object, str] = {
    operator.add: "add",
    operator.mul: "scale",
    functional.interpolate: "upsample",
}
