"""Activations are found exactly once each, in call order, and nothing stays behind on the net."""

import contextlib
import copy
import pickle
import sys
import threading
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from sap_art.networks import preact_resnet20
from sap_art.sites import _REGISTERING, _THREAD, DEFAULT_SITES, Site, SiteRule, SiteScope


class Calls(nn.Module):
    """(B, 6) -> (B, 6): a linear layer, then one given function."""

    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


class SqueezeExcitation(nn.Module):
    """Named like torchvision's gate."""

    def __init__(self):
        super().__init__()
        self.reduce = nn.Linear(6, 6)
        self.activation = nn.ReLU()

    def forward(self, x):
        return x * torch.sigmoid(F.relu(self.activation(self.reduce(x))))


class Swish(nn.Module):
    """Named like robustbench's; no functional activation inside."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class TwoInOne(nn.Module):
    """An activation made of two activations."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ReLU()

    def forward(self, x):
        return self.inner(x) + F.silu(x)


def announced(x):
    """A user's function that tells torch of its calls."""
    if has_torch_function_unary(x):
        return handle_torch_function(announced, (x,), x)
    return x * 2


def identity(h, site):
    return h


def sevens(h, site):
    return torch.full_like(h, 7.0)


def run(net, x, rule=DEFAULT_SITES, visit=identity):
    with SiteScope(net, rule, visit) as scope:
        out = net(x)
    return out, scope.sites


def names(sites):
    return [site.name for site in sites]


def traces(net):
    """Everything that a scope could have left behind."""
    dicts = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs")
    left = [(name, key) for name, module in net.named_modules() for key in dicts if getattr(module, key)]
    return left + list(torch.overrides._get_current_function_mode_stack()) + _THREAD.scopes


@pytest.fixture
def x():
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


FUNCTIONS = {
    "F.relu": F.relu,
    "F.relu(inplace)": lambda h: F.relu(h, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda h: h.relu(),
    "Tensor.relu_": lambda h: h.relu_(),
    "input=": lambda h: F.relu(input=h),
    "relu6": F.relu6,
    "relu6(inplace)": lambda h: F.relu6(h, inplace=True),
    "leaky_relu": F.leaky_relu,
    "leaky_relu(inplace)": lambda h: F.leaky_relu(h, inplace=True),
    "leaky_relu_": F.leaky_relu_,
    "rrelu": F.rrelu,
    "torch.rrelu": torch.rrelu,
    "rrelu_": F.rrelu_,
    "threshold": lambda h: F.threshold(h, 0.1, 0.0),
    "threshold_": lambda h: F.threshold_(h, 0.1, 0.0),
    "torch.threshold": lambda h: torch.threshold(h, 0.1, 0.0),
    "prelu": lambda h: F.prelu(h, torch.tensor([0.2])),
    "Tensor.prelu": lambda h: h.prelu(torch.tensor([0.2])),
    "elu": F.elu,
    "elu(inplace)": lambda h: F.elu(h, inplace=True),
    "elu_": F.elu_,
    "selu": F.selu,
    "torch.selu": torch.selu,
    "selu_": F.selu_,
    "celu": F.celu,
    "torch.celu": torch.celu,
    "celu_": F.celu_,
    "gelu": F.gelu,
    "gelu(tanh)": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "silu(inplace)": lambda h: F.silu(h, inplace=True),
    "mish": F.mish,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
}
MODULES = [
    *(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.RReLU(), nn.LeakyReLU(), nn.PReLU(), nn.Threshold(0.1, 0.0)),
    *(nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.SiLU(), nn.SiLU(inplace=True), nn.Mish(), nn.Hardswish()),
    *(nn.Softplus(), Swish()),
]
NEVER = [torch.sigmoid, torch.tanh, F.hardsigmoid, nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid(), nn.Softmax(1)]


@pytest.mark.parametrize("function", [*FUNCTIONS.values(), *MODULES], ids=[*FUNCTIONS, *map(str, MODULES)])
def test_every_way_of_calling_is_one_site_whose_output_is_replaced(function, x):
    """A functional call, its in-place twin and the module are one site, and what visit gives is what the net uses."""
    out, sites = run(Calls(function), x, visit=sevens)

    assert len(sites) == 1
    assert sites[0].shape == (6,)
    assert torch.equal(out, torch.full_like(x, 7.0))


@pytest.mark.parametrize("function", NEVER, ids=str)
def test_gates_and_attention_are_never_sites(function, x):
    """Sigmoid, tanh, softmax stay as they are."""
    assert run(Calls(function), x)[1] == ()


@pytest.mark.parametrize("function", [lambda h: h * h.sigmoid(), lambda h: h.clamp(min=0), Swish().forward])
def test_what_the_documentation_says_is_not_seen(function, x):
    """Arithmetic written out and a direct forward announce nothing (named in the module's docstring)."""
    assert run(Calls(function), x)[1] == ()


def test_sites_come_in_call_order_with_name_and_shape(x):
    """Index is call order, name the place in the net or the function, shape that of one image."""
    net = nn.Sequential(OrderedDict(first=nn.ReLU(), calls=Calls(F.gelu), last=nn.Sequential(nn.Linear(6, 3), Swish())))

    expected = (Site(0, "first", (6,)), Site(1, "gelu", (6,)), Site(2, "last.1", (3,)))
    assert run(net, x)[1] == expected
    assert run(net, x)[1] == expected


def test_a_net_that_is_itself_an_activation_has_its_class_name(x):
    """The root has no place, so its class names it."""
    assert names(run(nn.ReLU(), x)[1]) == ["ReLU"]


def test_resnet20_is_unchanged_by_an_identity_and_keeps_its_19_sites():
    """Two activations a block and one before the pooling; the same bits come out, forward and backward."""
    net = preact_resnet20().eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)

    plain = net(image)
    (expected,) = torch.autograd.grad(plain.sum(), image)
    out, sites = run(net, image)
    (gradient,) = torch.autograd.grad(out.sum(), image)

    blocks = [f"blocks.{block}.act{i}" for block in range(9) for i in (1, 2)]
    assert names(sites) == [*blocks, "act"]
    assert torch.equal(out, plain)
    assert torch.equal(gradient, expected)


def test_a_shared_module_is_a_site_at_each_call(x):
    """One ReLU object called three times is three sites of one name."""
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(6, 6), relu, nn.Linear(6, 6), relu, relu)

    assert run(net, x)[1] == (Site(0, "1", (6,)), Site(1, "1", (6,)), Site(2, "1", (6,)))


def test_an_activation_within_an_activation_is_one_site(x):
    """Only the outermost counts, whatever is inside; what follows counts again."""
    net = nn.Sequential(TwoInOne(), nn.ReLU())

    assert names(run(net, x, DEFAULT_SITES.extended(activations=(TwoInOne,)))[1]) == ["0", "1"]
    assert names(run(net, x)[1]) == ["0.inner", "silu", "1"]


def test_squeeze_excite_is_left_alone(x):
    """Neither modules nor functions inside a gate are sites, and the next activation is one."""
    net = nn.Sequential(nn.ReLU(), SqueezeExcitation(), nn.ReLU())

    assert names(run(net, x)[1]) == ["0", "2"]


def test_a_gate_wins_over_an_activation(x):
    """Named as both, by class or by place, a module is a gate."""
    net = nn.Sequential(nn.ReLU(), TwoInOne(), nn.ReLU())
    rule = DEFAULT_SITES.extended(activations=(TwoInOne, "0"), gates=("TwoInOne", "0"))

    assert names(run(net, x, rule)[1]) == ["2"]


def test_a_site_can_be_named_by_its_place(x):
    """A module of any class becomes a site by its qualified name, under each name of a shared module."""
    shared = nn.Linear(6, 6)
    net = nn.Sequential(OrderedDict(a=nn.Sequential(nn.Linear(6, 6), shared), b=nn.Sequential(shared)))

    assert names(run(net, x)[1]) == []
    assert names(run(net, x, DEFAULT_SITES.extended(activations=("a.0",)))[1]) == ["a.0"]
    assert names(run(net, x, DEFAULT_SITES.extended(activations=("b.0",)))[1]) == ["a.1", "a.1"]


def test_a_place_that_does_not_exist_is_an_error(x):
    """A slip in a dotted name must not pass for a net with fewer sites."""
    with pytest.raises(ValueError, match=r"no module 'blocks\.0\.act9' in Calls"):
        run(Calls(F.relu), x, DEFAULT_SITES.extended(activations=("blocks.0.act9",)))


@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_module_is_refused(whole, x):
    """It would run with none of its activations seen, or fail inside the compiler."""
    net = nn.Sequential(nn.ReLU(), nn.ReLU())
    if whole:
        net = torch.compile(net, backend="eager")
    else:
        net[1].compile(backend="eager")

    with pytest.raises(ValueError, match=r"hides the activations of '(the net|1)'"):
        run(net, x)
    assert traces(net) == []


@pytest.mark.parametrize("activation", [nn.Tanh, "Tanh"])
def test_a_class_can_be_added_by_itself_or_by_name(activation, x):
    """Subclasses count too."""

    class Mine(nn.Tanh):
        pass

    net = nn.Sequential(nn.Tanh(), Mine())

    assert names(run(net, x, DEFAULT_SITES.extended(activations=(activation,)))[1]) == ["0", "1"]


@pytest.mark.parametrize("function", [torch.sin, F.hardtanh, announced])
def test_a_function_can_be_added(function, x):
    """Torch's own functions and those that tell torch of their calls."""
    rule = DEFAULT_SITES.extended(functions=(function,))

    assert names(run(Calls(function), x, rule)[1]) == [function.__name__]


def test_a_module_inside_an_added_function_is_part_of_it(x):
    """A user's function that calls activation modules is one site."""
    relu = nn.ReLU()

    def twice(h):
        if has_torch_function_unary(h):
            return handle_torch_function(twice, (h,), h)
        return relu(relu(h))

    net = nn.Sequential(Calls(twice), relu)

    assert names(run(net, x, DEFAULT_SITES.extended(functions=(twice,)))[1]) == ["twice", "1"]


def test_a_function_that_torch_never_hears_of_is_refused():
    """It would never be found, so it is an error, not a net with fewer sites."""
    with pytest.raises(ValueError, match="never does; make it an"):
        DEFAULT_SITES.extended(functions=(lambda h: h * h.sigmoid(),))


def test_one_name_in_place_of_a_tuple_is_an_error():
    """'Swish' is not the five classes S, w, i, s, h."""
    with pytest.raises(TypeError, match=r"write \('Swish',\)"):
        DEFAULT_SITES.extended(activations="Swish")


def test_extended_leaves_the_default_alone():
    """Rules are values: extending makes a new one, copies and pickles are equal."""
    before = copy.copy(DEFAULT_SITES)
    longer = DEFAULT_SITES.extended(activations=(nn.Tanh,), functions=(torch.sin,), gates=("layer.se",))

    assert before == DEFAULT_SITES != longer
    assert isinstance(longer, SiteRule)
    assert pickle.loads(pickle.dumps(longer)) == copy.deepcopy(longer) == longer


def test_softplus_of_a_weight_is_not_an_activation(x):
    """A function of a parameter has no batch axis to draw over."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.rho = nn.Parameter(torch.zeros(6))

        def forward(self, x):
            return F.relu(x * F.softplus(self.rho))

    assert names(run(Scaled(), x)[1]) == ["relu"]


def test_a_site_that_returns_no_tensor_is_an_error(x):
    """A place whose output is a tuple cannot be a site."""
    net = Calls(lambda h: h)
    net.linear = nn.LSTM(6, 6)

    with pytest.raises(TypeError, match="must return a tensor, got tuple from 'linear'"):
        run(net, x, DEFAULT_SITES.extended(activations=("linear",)))


def test_visit_may_call_activations_itself(x):
    """Neither functions nor the net's own modules are counted while visit runs."""
    net = nn.Sequential(nn.ReLU(), Calls(F.relu))

    sites = run(net, x, visit=lambda h, site: torch.relu(net[0](F.silu(h))))[1]

    assert names(sites) == ["0", "relu"]


def test_backward_passes_through_an_inplace_relu(x):
    """The replaced output and the in-place one do not disturb each other: the gradient is the mask times the scale."""
    net = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True), nn.ReLU(inplace=True))
    x.requires_grad_()

    out, sites = run(net, x * 1, visit=lambda h, site: h * 3)
    (gradient,) = torch.autograd.grad(out.sum(), x)

    assert len(sites) == 2
    assert torch.equal(gradient, (x > 0) * 9.0)


def test_nothing_stays_behind(x):
    """After the scope the net has no hooks, torch has no mode, and visit is not called any more."""
    net = nn.Sequential(nn.ReLU(), SqueezeExcitation(), Calls(F.relu))
    seen = []

    def visit(h: Tensor, site: Site) -> Tensor:
        seen.append(site)
        return h

    run(net, x, visit=visit)
    net(x)

    assert traces(net) == []
    assert len(seen) == 2


@pytest.mark.parametrize("where", ["module", "function", "gate", "visit", "block"])
def test_nothing_stays_behind_when_something_raises(where, x):
    """Wherever the pass breaks off, the net is clean afterwards and the next scope starts at zero."""
    broken = True

    def fail(h, *_):
        if broken:
            raise RuntimeError("broken")
        return h

    class Failing(nn.ReLU):
        def forward(self, x):
            return fail(super().forward(x))

    class SEModule(nn.Module):
        def forward(self, x):
            return fail(x)

    middle = {"module": Failing(), "gate": SEModule(), "function": Calls(lambda h: fail(F.relu(h)))}
    net = nn.Sequential(nn.ReLU(), middle.get(where, Calls(fail) if where == "block" else nn.ReLU()), nn.ReLU())
    visit = fail if where == "visit" else identity
    with pytest.raises(RuntimeError, match="broken"):
        run(net, x, visit=visit)

    assert traces(net) == []

    broken = False
    sites = run(net, x, visit=visit)[1]
    assert [site.index for site in sites] == list(range(2 if where in ("gate", "block") else 3))


def test_nothing_stays_behind_when_the_scope_cannot_open(x):
    """Half the hooks set and then an error: they go too."""
    net = nn.Sequential(nn.ReLU(), nn.ReLU())

    def refuse(*args, **kwargs):
        raise RuntimeError("refused")

    net[1].register_forward_hook = refuse
    with pytest.raises(RuntimeError, match="refused"):
        run(net, x)

    assert traces(net) == []


class Tries(nn.Module):
    """Goes on with its input where ``tried`` fails."""

    def __init__(self, tried):
        super().__init__()
        self.tried = tried

    def forward(self, x):
        with contextlib.suppress(RuntimeError, ValueError):
            x = self.tried(x)
        return F.relu(x)


def blocked_relu():
    """A ReLU that never starts, because a hook set by somebody else raises first."""

    def refuse(module, args):
        raise RuntimeError("refused")

    relu = nn.ReLU()
    relu.register_forward_pre_hook(refuse)
    return relu


@pytest.mark.parametrize(
    "tried",
    [nn.LSTM(3, 3), Calls(lambda h: F.prelu(h, torch.ones(5))), blocked_relu()],
    ids=["gate", "function", "module"],
)
def test_a_net_that_catches_its_own_error_loses_no_later_site(tried, x):
    """A net may try something and go on; the activations after it still count."""
    assert names(run(Tries(tried), x, DEFAULT_SITES.extended(gates=("LSTM",)))[1]) == ["relu"]


def test_a_visit_that_fails_pauses_nothing_afterwards(x):
    """If the net survives an error of visit, the later activations are still visited."""

    def visit(h, site):
        if site.index == 0:
            raise ValueError("not this one")
        return torch.full_like(h, 7.0)

    out, found = run(Tries(nn.ReLU()), x, visit=visit)

    assert names(found) == ["tried", "relu"]
    assert torch.equal(out, torch.full_like(x, 7.0))


def test_an_interrupted_scope_can_be_used_again(x):
    """Ctrl-C in the middle of an activation is followed by a fresh start."""
    relu = nn.ReLU()
    net = nn.Sequential(relu)
    scope = SiteScope(net, DEFAULT_SITES, identity)

    def interrupted(h):
        del relu.forward
        raise KeyboardInterrupt

    relu.forward = interrupted
    with pytest.raises(KeyboardInterrupt), scope:
        net(x)
    with scope:
        net(x)

    assert names(scope.sites) == ["0"]
    assert traces(net) == []


def test_scopes_can_be_nested(x):
    """Two scopes on one net each see each activation once, the outer first, and neither sees the other's visit."""
    net = nn.Sequential(nn.ReLU(), Calls(F.relu))
    order = []

    def visit(label):
        def record(h, site):
            order.append((label, site.name))
            return torch.relu(h)

        return record

    with SiteScope(net, DEFAULT_SITES, visit("outer")) as outer, SiteScope(net, DEFAULT_SITES, visit("inner")) as inner:
        net(x)

    assert names(outer.sites) == names(inner.sites) == ["0", "relu"]
    assert order == [("outer", "0"), ("inner", "0"), ("outer", "relu"), ("inner", "relu")]


def test_visit_may_open_a_scope_of_its_own(x):
    """A policy that consults another net with a scope gets that net's sites; the outer scope keeps to its own."""
    net, other = nn.Sequential(nn.ReLU(), Calls(F.relu)), nn.Sequential(Calls(F.relu), nn.GELU())
    found = []

    def visit(h, site):
        out, sites = run(other, h)
        found.append(names(sites))
        return out

    assert names(run(net, x, visit=visit)[1]) == ["0", "relu"]
    assert found == [["relu", "1"], ["relu", "1"]]


def test_a_scope_belongs_to_its_thread(x):
    """A thread that runs the net without a scope is not touched by another thread's scope."""
    net = nn.Sequential(nn.ReLU(), Calls(F.relu))
    plain, outs = net(x), []

    with SiteScope(net, DEFAULT_SITES, sevens) as scope:
        thread = threading.Thread(target=lambda: outs.append(net(x)))
        thread.start()
        thread.join()

    assert scope.sites == ()
    assert torch.equal(outs[0], plain)


@pytest.fixture
def restless_threads():
    """Python changes threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_can_share_a_net(x, restless_threads):
    """Many scopes of many threads at one time: each sees every site once, and applies its own visit."""
    net = nn.Sequential(*(nn.ReLU() if i % 2 else nn.Linear(6, 6) for i in range(20)), nn.ReLU())
    wrong = []

    def work(value):
        for _ in range(30):
            out, sites = run(net, x, visit=lambda h, site: torch.full_like(h, value))
            if len(sites) != 11 or not torch.equal(out, torch.full_like(x, value)):
                wrong.append((value, sites))

    threads = [threading.Thread(target=work, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert traces(net) == []


def test_hooks_are_numbered_one_at_a_time(x):
    """Torch numbers hooks without a lock and two hooks of one number are one hook, so we hold a lock of our own."""
    held = []

    class Watching(nn.ReLU):
        def register_forward_hook(self, *args, **kwargs):
            held.append(_REGISTERING.locked())
            return super().register_forward_hook(*args, **kwargs)

    run(Watching(), x)

    assert held == [True]


def test_a_scope_can_be_used_again(x):
    """Each opening starts the list of sites anew."""
    net = nn.Sequential(nn.ReLU())
    scope = SiteScope(net, DEFAULT_SITES, identity)
    for _ in range(2):
        with scope:
            net(x)

    assert len(scope.sites) == 1
