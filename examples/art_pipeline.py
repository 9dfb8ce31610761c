"""SAP in an ART pipeline: load a net, defend it, attack it with three of ART's attacks, and score without flattery.

Needs nothing but the package: ``python examples/art_pipeline.py``, about half a minute on one core.
"""

from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent, SquareAttack
from art.estimators.classification import PyTorchClassifier
from torch.nn import CrossEntropyLoss

from sap_art import data, zoo
from sap_art.integrations.art import defend, evaluate_art

EPS = 8 / 255


def main(images: int = 32, steps: int = 10, draws: int = 16) -> None:
    """Print, for no attack and for three, the accuracy of fresh draws and that of the one predict of ART's way."""
    x, y = (tensor.numpy() for tensor in data.load("cifar10", n=images))
    net = zoo.load("preact-resnet20")
    classifier = PyTorchClassifier(net, CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0, 1), device_type="cpu")

    defended = defend(classifier, percent=100, seed=0)  # the one line
    view = defended.attack_view(draws=4)  # what an attack is given
    pgd = {"eps": EPS, "eps_step": EPS / 4, "max_iter": steps, "verbose": False}
    attacks = {
        "none": None,
        "Square": SquareAttack(view, eps=EPS, max_iter=10 * steps, verbose=False),
        "PGD": ProjectedGradientDescent(view, **pgd),
        "APGD": AutoProjectedGradientDescent(view, **pgd, nb_random_init=1, loss_type="cross_entropy"),
    }
    print(f"{'attack':8}{'accuracy':>9}{'95 % interval':>17}{'one predict':>13}")
    for name, attack in attacks.items():
        score = evaluate_art(defended, attack, x, y, draws=draws, seed=1)
        low, high = score.interval
        print(f"{name:8}{score.accuracy:9.1%}  [{low:6.1%}, {high:6.1%}]{score.single_predict_accuracy:13.1%}")


if __name__ == "__main__":
    main()
