"""A deterministic model as one generated file of Python and its weights, which need torch and nothing else."""

from __future__ import annotations

import importlib.util
import keyword
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

TOLERANCE = 1e-4
"""Largest difference of logits, of the largest of them, between a model and what was generated of it."""
WEIGHTS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
Weights = dict[str, Tensor]


def write_standalone(model: nn.Module, images: Tensor, path: Path, *, about: str) -> Path:
    """Write ``path`` (NAME.py) with the class ``Model`` and the function ``load``, and its weights beside it (NAME.pt).

    ``Model`` is a plain nn.Module, (B, ...) -> (B, C) for any B, spelled out in torch's operators as ``model`` runs
    them in eval mode; its parameters have gradients, its weights are loaded with ``weights_only``. It is loaded again
    and must give the logits of ``model`` on ``images``.

    Args:
        model: deterministic, in eval mode.
        images: (B, ...) to trace with and to compare on.
        path: ends in .py; its stem must be a Python name, so that the file can be imported.
        about: the docstring of the file.

    Raises:
        ValueError: a model in training mode, whose run depends on the values of an image or needs code of its own,
            that changes itself, or whose generated code gives other logits; a name that cannot be imported.
    """
    if path.suffix != ".py" or not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise ValueError(f"the file must be importable, NAME.py with a Python name, got {path.name}")
    if training := [name or "the model" for name, module in model.named_modules() if module.training]:
        raise ValueError(f"{training[0]} is in training mode: call .eval() first")
    program = _traced(model, images)
    weights = _weights(program)
    path.write_text(_source(program, weights, about=about), encoding="utf-8")
    torch.save({name: value.detach().cpu().clone() for name, value in weights.items()}, path.with_suffix(".pt"))
    _require_same_logits(model, path, images)
    return path


def load_standalone(path: Path) -> nn.Module:
    """The model of a generated file, on the CPU in eval mode; runs that file."""
    spec = importlib.util.spec_from_file_location(f"sap_art_generated_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


# Tracing.


def _traced(model: nn.Module, images: Tensor) -> ExportedProgram:
    two = images[:1].repeat(2, *[1] * (images.ndim - 1))  # a batch of one would be taken for a constant
    try:
        program = export(model, (two,), dynamic_shapes=({0: Dim("batch")},), strict=False)
    except Exception as error:  # whatever torch.export and other people's modules raise
        raise ValueError(
            f"{type(model).__name__} cannot be written as one list of torch's operators "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]}); "
            "it must run the same operators whatever the images and their number"
        ) from error
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    if kinds != [OutputKind.USER_OUTPUT]:
        raise ValueError(f"{type(model).__name__} must return logits alone and change nothing of its own, got {kinds}")
    return program


def _weights(program: ExportedProgram) -> Weights:
    """What the operators use of the model, by the names that they have in the graph."""
    known: dict[str, Any] = {**program.state_dict, **program.constants}
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    specs = [spec for spec in program.graph_signature.input_specs if spec.arg.name in used]
    return {spec.arg.name: known[spec.target] for spec in specs if spec.kind in WEIGHTS and spec.target is not None}


# Writing.


def _source(program: ExportedProgram, weights: Weights, *, about: str) -> str:
    forward = list(_forward(program, weights))
    operator = ["import operator"] if any("operator." in line for line in forward) else []
    shapes = [f"    {name!r}: ({tuple(value.shape)}, {value.dtype})," for name, value in weights.items()]
    trained = [name for name, value in weights.items() if isinstance(value, nn.Parameter)]
    return "\n".join(
        [
            f'"""{_plain(about)}"""',
            "",
            *operator,
            "from pathlib import Path",
            "",
            "import torch",
            "from torch import nn",
            "",
            "SHAPES = {",
            *shapes,
            "}",
            "PARAMETERS = [",
            *(f"    {name!r}," for name in trained),
            "]",
            "",
            "",
            "class Model(nn.Module):",
            '    """Images (B, 3, H, W) in [0, 1] -> (B, C) logits; deterministic, always in eval mode."""',
            "",
            "    def __init__(self):",
            "        super().__init__()",
            "        for name, (shape, dtype) in SHAPES.items():",
            "            value = torch.empty(shape, dtype=dtype)",
            "            if name in PARAMETERS:",
            "                self.register_parameter(name, nn.Parameter(value))",
            "            else:",
            "                self.register_buffer(name, value)",
            "",
            *forward,
            "",
            "",
            "def load():",
            '    """The model with its weights, from the .pt file beside this one."""',
            "    model = Model()",
            '    path = Path(__file__).with_suffix(".pt")',
            '    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))',
            "    return model.eval()",
            "",
        ]
    )


def _forward(program: ExportedProgram, weights: Weights) -> Iterator[str]:
    """The lines of ``forward``; a tensor is dropped after its last use."""
    nodes = [node for node in program.graph.nodes if node.op != "placeholder"]
    inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name not in weights]
    users = [node.name for node in inputs if node.users]
    names = {name: f"self.{name}" for name in weights} | dict.fromkeys(users, "x")
    last = {source: node for node in nodes for source in node.all_input_nodes}
    yield "    def forward(self, x):"
    for node in nodes:
        if node.op == "output":
            yield f"        return {_text(node.args[0][0], names)}"
            continue
        yield f"        {node.name} = {_call(node, names)}"
        done = [source.name for source, user in last.items() if user is node and source.name not in names]
        if done:
            yield f"        del {', '.join(done)}"


def _call(node: Node, names: dict[str, str]) -> str:
    target: Any = node.target
    if node.op == "call_function" and getattr(target, "namespace", "") == "aten":
        function = f"torch.ops.{target}"
    elif node.op == "call_function" and getattr(target, "__module__", "") == "_operator":
        function = f"operator.{target.__name__}"
    else:
        raise ValueError(f"{target} is no operator of torch's own, so the model needs more code than can be written")
    arguments = [_text(value, names) for value in node.args]
    options = [f"{key}={_text(value, names)}" for key, value in node.kwargs.items()]
    return f"{function}({', '.join([*arguments, *options])})"


def _text(value: Any, names: dict[str, str]) -> str:
    if isinstance(value, Node):
        return names.get(value.name, value.name)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(item, names) for item in value)}]"
    if isinstance(value, torch.device):
        return "x.device"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.layout | torch.memory_format):
        return repr(value)
    raise ValueError(f"{value!r} cannot be written down as an argument of an operator")


def _plain(text: str) -> str:
    """Text that cannot end the docstring it stands in."""
    return text.replace("\\", "/").replace('"', "'")


def _require_same_logits(model: nn.Module, path: Path, images: Tensor) -> None:
    """Twice, for a model that changes itself is not the same again."""
    with torch.no_grad():
        expected, made = model(images).cpu(), load_standalone(path).to(images.device)
        found = torch.stack([made(images).cpu() for _ in range(2)])
    worst, size = (found - expected).abs().max().item(), expected.abs().max().item()
    if not worst <= TOLERANCE * max(1.0, size):
        raise ValueError(f"the generated {path.name} differs from the model by {worst:.3g} in logits up to {size:.3g}")
