"""Where a net's activations are: found by call, in call order, each exactly once, around one forward pass.

``SiteScope`` puts hooks on every module that a ``SiteRule`` names and a ``TorchFunctionMode`` under the functional
calls (``F.relu``, ``torch.relu``, ``h.relu_()``), hands each output to ``visit`` and takes all of it off again:

    with SiteScope(net, DEFAULT_SITES, lambda h, site: h * 0.9) as scope:
        logits = net(x)
    scope.sites                             # (Site(0, "blocks.0.act1", (16, 32, 32)), Site(1, "relu", (64, 8, 8)), ...)

One depth counter holds "exactly once": it is up inside every activation (``nn.ReLU`` calls ``F.relu``), inside every
gate and while ``visit`` runs, and only an outermost activation is a site. A module called five times is five sites.
Sigmoid, tanh and softmax are never sites, squeeze-excite gates are left alone.

Not seen, because nothing announces it:
- arithmetic written out: ``x * sigmoid(x)``, ``clamp(min=0)``, and a ``Swish.forward(x)`` called past ``__call__``;
- an in-place ReLU whose return value is thrown away: it is listed, but what ``visit`` returns is lost;
- work in other threads (``nn.DataParallel``) and inside TorchScript; a compiled module is refused;
- what backward computes again: with activation checkpointing the gradient is wrong, so switch that off;
- a gate written inside a larger block (ResNeSt's ``SplAtConv2d``): its ReLU is taken for an activation.
Look at ``scope.sites``, then name what is missing, by class, by class name or by place in the net, or call it a gate:

    DEFAULT_SITES.extended(activations=(MySwish, "blocks.3.mlp"), functions=(torch.sin,), gates=("blocks.3.attention",))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode,  # pyright: ignore[reportPrivateUsage]
    _pop_mode_temporarily,  # pyright: ignore[reportPrivateUsage]
)


@dataclass(frozen=True)
class Site:
    """One call of one activation: its place in call order, its name, the shape of one image's output.

    Where weights are drawn, one weight tensor: its place in the net's order, its name, its shape.
    """

    index: int
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SiteRule:
    """What is an activation. A string is a class name or a module's qualified name; a gate wins over an activation."""

    activations: tuple[type[nn.Module] | str, ...]
    functions: tuple[Callable[..., Any], ...]
    gates: tuple[type[nn.Module] | str, ...]

    def __post_init__(self) -> None:
        for function in self.functions:
            if not _is_announced(function):
                raise ValueError(
                    f"functions must tell torch of their calls, got {function!r}, which never does; make it an "
                    "nn.Module and name its class, or let it call torch.overrides.handle_torch_function"
                )

    def extended(
        self,
        activations: Iterable[type[nn.Module] | str] = (),
        functions: Iterable[Callable[..., Any]] = (),
        gates: Iterable[type[nn.Module] | str] = (),
    ) -> SiteRule:
        """A new rule that knows these too."""
        for argument in (activations, gates):
            if isinstance(argument, str):
                raise TypeError(f"expected a tuple of classes and names, got {argument!r}; write ({argument!r},)")
        return SiteRule((*self.activations, *activations), (*self.functions, *functions), (*self.gates, *gates))


def _is_announced(function: Callable[..., Any]) -> bool:
    """Whether a TorchFunctionMode can see calls of this function: torch's own, or one that hands itself to torch."""
    code = getattr(function, "__code__", None)
    if code is None:
        return hasattr(function, "__name__")  # built in; a functools.partial has no name and is never what is called
    return function.__module__.split(".")[0] == "torch" or "handle_torch_function" in code.co_names


DEFAULT_SITES = SiteRule(
    activations=(
        *(nn.ReLU, nn.ReLU6, nn.RReLU, nn.LeakyReLU, nn.PReLU, nn.Threshold, nn.ELU, nn.SELU, nn.CELU),
        *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus),
        *("Swish", "SwishMe", "MemoryEfficientSwish", "HardSwish", "HardSwishMe", "PSSiLU"),  # timm, robustbench
        *("Mish", "MishMe", "HardMish", "HardMishMe", "GELU", "GELUTanh", "QuickGELU", "SquaredReLU", "StarReLU"),
    ),
    functions=(
        *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu, F.relu6),
        *(F.leaky_relu, F.leaky_relu_, torch.rrelu, torch.rrelu_, F.rrelu, F.prelu, Tensor.prelu),
        *(torch.threshold, torch.threshold_, F.threshold, F.elu, F.elu_),
        *(torch.selu, torch.selu_, F.selu, torch.celu, torch.celu_, F.celu),
        *(F.gelu, F.silu, F.mish, F.hardswish, F.softplus),
    ),
    gates=(
        *("SqueezeExcitation", "SqueezeExcite", "SqueezeExciteCl", "SEModule", "EffectiveSEModule", "BlockESE"),
        *("SELayer", "SEBlock", "SEUnit", "EcaModule", "CecaModule", "GatherExcite", "GlobalContext"),
        *("CbamModule", "LightCbamModule", "SelectiveKernelAttn"),
    ),
)

CONVOLUTIONS = SiteRule(
    activations=(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    functions=(F.conv1d, F.conv2d, F.conv3d),
    gates=DEFAULT_SITES.gates,
)
"""Outputs of convolutions in the place of activations, for what acts before normalisation and ReLU."""


class _Thread(threading.local):
    """The scopes that are open in this thread, outermost first."""

    def __init__(self) -> None:
        self.scopes: list[SiteScope] = []


_THREAD = _Thread()
_REGISTERING = threading.Lock()  # torch numbers its hooks without one, and two hooks of one number are one hook


class _FunctionMode(TorchFunctionMode):
    """Hands every functional call of this thread to ``call(function, args, kwargs)``."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self._call = call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._call(func, args, kwargs or {})


def _without(mode: TorchFunctionMode) -> AbstractContextManager[Any]:
    """Within, the mode does not look, if it is the innermost one; torch has no public name for this."""
    innermost = _get_current_function_mode() is mode
    return _pop_mode_temporarily() if innermost else nullcontext()


class SiteScope:
    """While open, replaces every activation's output h (B, ...) by ``visit(h, site)``; for one forward pass.

    ``visit`` must work out of place and may call activations itself. One scope belongs to one thread; several scopes,
    here or in other threads, may share the net. Raises ValueError for a compiled module in the net, and for a dotted
    name in the rule that is no module of the net.
    """

    def __init__(self, net: nn.Module, rule: SiteRule, visit: Callable[[Tensor, Site], Tensor]) -> None:
        self._net = net
        self._rule = rule
        self._visit = visit
        self._functions = frozenset(rule.functions)
        self._met: list[Site] = []
        self._depth = 0
        self._undo = ExitStack()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites met so far, in call order."""
        return tuple(self._met)

    def __enter__(self) -> SiteScope:
        self._met.clear()
        self._depth = 0
        with ExitStack() as undo, _REGISTERING:
            for module, name, is_gate in _watched(self._net, self._rule):
                undo.callback(module.register_forward_pre_hook(self._enter_module, prepend=True).remove)
                leave = partial(self._leave_module, None if is_gate else name)
                undo.callback(module.register_forward_hook(leave, always_call=True).remove)
            self._mode = undo.enter_context(_FunctionMode(self._call_function))
            _THREAD.scopes.append(self)
            undo.callback(_THREAD.scopes.remove, self)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._undo.close()
        del self._mode  # it holds this scope, which holds it: what ``visit`` holds would stay till garbage is collected

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        if self in _THREAD.scopes:
            self._depth += 1

    def _leave_module(self, name: str | None, module: nn.Module, args: Any, out: Any) -> Tensor | None:
        """``name`` is None for a gate, ``out`` is None where the module raised."""
        if self not in _THREAD.scopes:
            return None
        self._depth -= 1
        return None if self._depth or name is None or out is None else self._replace(out, name)

    def _call_function(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._depth or function not in self._functions:
            return function(*args, **kwargs)
        self._depth += 1
        try:
            out = function(*args, **kwargs)
        finally:
            self._depth -= 1
        is_weight = bool(args) and isinstance(args[0], nn.Parameter)  # softplus(self.rho) has no batch axis
        return out if is_weight else self._replace(out, function.__name__)

    def _replace(self, h: Any, name: str) -> Tensor:
        if not isinstance(h, Tensor):
            raise TypeError(f"a site must return a tensor, got {type(h).__name__} from {name!r}; take it off the rule")
        site = Site(len(self._met), name, tuple(h.shape[1:]))
        self._met.append(site)
        paused = tuple(_THREAD.scopes)
        for scope in paused:
            scope._depth += 1
        try:
            with _without(self._mode):  # a visit is a hundred operations that need no look at each
                return self._visit(h, site)
        finally:
            for scope in paused:
                scope._depth -= 1


def _watched(net: nn.Module, rule: SiteRule) -> Iterator[tuple[nn.Module, str, bool]]:
    """Every gate and activation module once: the module, its first name, whether it is a gate."""
    places: dict[nn.Module, list[str]] = {}
    for place, module in net.named_modules(remove_duplicate=False):
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(f"torch.compile hides the activations of {place or 'the net'!r}; give it uncompiled")
        places.setdefault(module, []).append(place)
    known = {place for names in places.values() for place in names}
    for label in (*rule.activations, *rule.gates):
        if isinstance(label, str) and "." in label and label not in known:
            raise ValueError(f"no module {label!r} in {type(net).__name__}; net.named_modules() lists their names")
    is_gate, is_activation = _matcher(rule.gates), _matcher(rule.activations)
    for module, names in places.items():
        gate = is_gate(module, names)
        if gate or is_activation(module, names):
            yield module, names[0] or type(module).__name__, gate


def _matcher(labels: tuple[type[nn.Module] | str, ...]) -> Callable[[nn.Module, list[str]], bool]:
    """Whether a module at these places is meant, by class, by name of its class or a base, or by place."""
    classes = tuple(label for label in labels if not isinstance(label, str))
    texts = {label for label in labels if isinstance(label, str)}
    seen: dict[type[nn.Module], bool] = {}

    def matches(module: nn.Module, names: list[str]) -> bool:
        kind = type(module)
        if kind not in seen:
            seen[kind] = issubclass(kind, classes) or any(base.__name__ in texts for base in kind.__mro__)
        return seen[kind] or not texts.isdisjoint(names)

    return matches
