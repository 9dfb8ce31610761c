"""RobustBench can be imported and used, its zoo's nets are understood, and no repair outlives its use."""

import importlib
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from sap_art import SAP, DefendedModel
from sap_art.integrations import robustbench as bridge
from sap_art.sites import DEFAULT_SITES, SiteScope

STAND_INS = ("autoattack", "autoattack.state", "pkg_resources")


@pytest.fixture(scope="session")
def robustbench():
    """The real package, imported once (it takes ten seconds)."""
    with bridge.repaired() as module:
        return module


@pytest.fixture
def tracing():
    """AutoAttack switches tracing off (sys.settrace(None)); coverage and debuggers want it back."""
    before = sys.gettrace()
    yield
    sys.settrace(before)


@pytest.fixture
def batch():
    """A linear classifier, eight images, and the classes that it gives them."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(10, 12, generator=generator))
        net[1].bias.zero_()
    x = torch.rand(8, 3, 2, 2, generator=generator)
    return net, x, net(x).argmax(1)


def zoo_net(name):
    """An architecture of the zoo with random weights: nothing is downloaded."""
    models = importlib.import_module("robustbench.model_zoo.cifar10").linf
    if "XCiT" in name:
        return importlib.import_module("timm").create_model("debenedetti2022light_xcit_s12_cifar10_linf").eval()
    return models[name]["model"]().eval()


@pytest.mark.parametrize(
    ("name", "activations", "first"),
    [
        pytest.param("Wong2020Fast", 16, "relu", id="F.relu"),
        pytest.param("Carmon2019Unlabeled", 25, "block1.layer.0.relu1", id="ReLU(inplace)"),
        pytest.param("Rebuffi2021Fixing_R18_ddpm", 17, "layer_0.0.relu_0", id="Swish"),
        pytest.param("Wang2023Better_WRN-28-10", 25, "layer.0.block.0.relu_0", id="SiLU"),
        pytest.param("Debenedetti2022Light_XCiT-S12", 29, "model.patch_embed.proj.1", id="GELU"),
    ],
)
@torch.no_grad()
def test_zoo_nets_are_covered(robustbench, name, activations, first):
    """As many sites as the net has activation calls, the same bits with an identity, the same order each time."""
    net = zoo_net(name)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = net(x)
    with SiteScope(net, DEFAULT_SITES, lambda h, site: h) as scope:
        out = net(x)
    sites = scope.sites
    with scope:
        net(x)

    assert (len(sites), sites[0].name) == (activations, first)
    assert torch.equal(out, plain)
    assert scope.sites == sites
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_robustbench_goes_on_working_after_the_repair(robustbench):
    """What was lent to sys.modules is taken back; the imported package keeps what it needs."""
    loaders = importlib.import_module("robustbench.loaders")
    ids = loaders.pkg_resources.resource_filename("robustbench.loaders", "helper_files/imagenet_test_image_ids.txt")

    assert callable(robustbench.benchmark)
    assert importlib.import_module("robustbench.eval").AutoAttack.__name__ == "AutoAttack"
    assert Path(ids).read_text().startswith("n0")


def test_stand_ins_live_only_within(robustbench, monkeypatch):
    """Where the real packages are missing, their names are taken within and free again afterwards, also on error."""
    hide(monkeypatch, "autoattack", "pkg_resources")
    seen = []

    def use():
        with bridge.repaired():
            seen.append(present())
            with bridge.repaired():
                pass
            seen.append(present())
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        use()

    assert seen == [[*STAND_INS], [*STAND_INS]]
    assert present() == []


def test_a_repair_leaves_the_real_package_alone(robustbench, monkeypatch):
    """With a real autoattack and a real pkg_resources there is nothing to mend."""
    real = {name: ModuleType(name) for name in ("autoattack", "pkg_resources")}
    for name, module in real.items():
        monkeypatch.setitem(sys.modules, name, module)
    with bridge.repaired():
        within = {name: sys.modules[name] for name in real}

    assert within == real == {name: sys.modules[name] for name in real}
    assert "autoattack.state" not in sys.modules


@pytest.mark.parametrize("missing", ["robustbench", "pyautoattack"])
def test_a_missing_package_is_named_with_the_command_to_run(missing, monkeypatch):
    """Without the extra the error says what to install, and nothing is left in sys.modules."""
    hide(monkeypatch, missing, "autoattack", "pkg_resources")
    monkeypatch.setitem(sys.modules, missing, None)

    message = rf"needs {missing}: pip install 'sap_art\[robustbench\]'"
    with pytest.raises(ImportError, match=message), bridge.repaired():
        pass

    assert present() == []


def test_the_bridge_imports_nothing_by_itself():
    """A fresh interpreter that imports sap_art's bridge has not paid the ten seconds of importing robustbench."""
    code = (
        "import sys, sap_art.integrations.robustbench; print({'robustbench', 'pyautoattack', 'timm'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_autoattack_called_the_old_way_gives_what_the_new_one_gives(robustbench, batch, tracing, tmp_path):
    """Same images from the old signature as from pyautoattack itself; labels on request; a log file if named."""
    net, x, y = batch
    log = tmp_path / "log.txt"
    settings = {"norm": "Linf", "eps": 0.3, "seed": 0, "version": "custom", "device": "cpu"}
    new = importlib.import_module("pyautoattack").AutoAttack(net, attacks=["apgd-ce"], **settings)
    old = old_autoattack()(net, attacks_to_run=["apgd-ce"], log_path=log, **settings)
    new.apgd.n_iter = old.apgd.n_iter = 3

    x_adv, labels = new.run_standard_evaluation(x, y, batch_size=4)

    assert torch.equal(old.run_standard_evaluation(x, y, bs=4), x_adv)
    assert not torch.equal(x_adv, x)
    both = old.run_standard_evaluation(x, y, bs=4, return_labels=True)
    assert torch.equal(both[0], x_adv)
    assert torch.equal(both[1], labels)
    assert torch.equal(old.run_standard_evaluation_individual(x, y, bs=4)["apgd-ce"], x_adv)
    assert "robust accuracy after APGD-CE" in log.read_text()
    assert logging.getLogger("auto-attack").handlers == []


def test_autoattack_refuses_a_state_file(robustbench, batch, tmp_path):
    """Its state file is lost after the last attack, so asking for one is an error before the first."""
    net, x, y = batch

    with pytest.raises(ValueError, match="leave state_path at None"):
        old_autoattack()(net).run_standard_evaluation(x, y, state_path=tmp_path / "state.json")


def old_autoattack():
    """The class that robustbench's benchmark calls; ours, or a real autoattack's."""
    return importlib.import_module("robustbench.eval").AutoAttack


def present():
    """The stand-ins that can be imported now."""
    return [name for name in STAND_INS if name in sys.modules]


def hide(monkeypatch, *names):
    """Make packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else find(name, *a))
    for name in list(sys.modules):
        if name.split(".")[0] in names:
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("robustbench")
@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("Wong2020Fast", 16),  # F.relu
        ("Carmon2019Unlabeled", 25),  # nn.ReLU(inplace=True)
        ("Rebuffi2021Fixing_R18_ddpm", 17),  # custom Swish
        ("Debenedetti2022Light_XCiT-S12", 29),  # GELU transformer
    ],
)
def test_sap_defends_every_kind_of_net(name, activations):
    """A huge percent of independent units gives the dense output, every site is hit once a call, SAP-100 moves it."""
    net = zoo_net(name)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = DefendedModel(net, SAP(1e9, "bernoulli"), seed=1)
    with torch.no_grad():
        dense = net(x)
        torch.testing.assert_close(model(x), dense, rtol=1e-5, atol=1e-5)
        assert len(model.sites) == activations
        assert not torch.allclose(DefendedModel(net, SAP(100), seed=1)(x), dense, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("robustbench")
@pytest.mark.parametrize("gradient", ["bpda", "frozen", "autograd"])
def test_gradients_through_an_in_place_net_are_finite(gradient):
    """nn.ReLU(inplace=True) and SAP after it, all estimators."""
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = DefendedModel(zoo_net("Carmon2019Unlabeled"), SAP(100), seed=1, gradient=gradient)(x)
    (found,) = torch.autograd.grad(out.logsumexp(1).sum(), x)

    assert torch.isfinite(found).all()
    assert found.any()
