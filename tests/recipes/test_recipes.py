"""The recipe book: every recipe makes a loss, every loss has a recipe."""

import csv
import inspect
import re
from pathlib import Path

import pytest

from kdkeras import losses, recipes

PUBLIC = {value for value in vars(losses).values() if isinstance(value, type)}
BASES = {losses.DistillationLoss, losses.FeatureLoss, losses.RelationalLoss, losses.TemperedLoss}
# Layers and margins depend on the models, the samples of a bank on the data.
PLACES = {
    "student_layer": "s",
    "teacher_layer": "t",
    "student_layers": ("s1", "s2"),
    "teacher_layers": ("t1", "t2"),
    "margin": -0.1,
    "samples": 20_000,
}
EVERY = [(loss, name) for loss in recipes.names() for name in recipes.entry(loss).recipes]


def places(loss):
    parameters = inspect.signature(getattr(losses, recipes.entry(loss).loss)).parameters
    return {name: value for name, value in PLACES.items() if name in parameters}


@pytest.mark.parametrize(("loss", "name"), EVERY)
def test_every_recipe_makes_its_loss(loss, name):
    recipe = recipes.recipe(loss, name)
    made = losses.get(loss, recipe=name, **{k: v for k, v in places(loss).items() if k not in recipe.settings})
    config = made.get_config()
    for setting, value in recipe.settings.items():
        found = list(config[setting]) if isinstance(config[setting], tuple) else config[setting]
        assert found == (pytest.approx(value) if isinstance(value, float) else value)  # variables hold float32
    assert recipe.task_weight >= 0
    assert recipe.warm_up_epochs >= 0
    assert recipe.source


def tried_factors():
    """Return the validation accuracy of each loss at each factor on its published weight."""
    tried = {}
    text = (Path(__file__).parents[2] / "benchmarks" / "loss_weights.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        loss, _, factor = row["loss"].partition(" × ")
        tried.setdefault(loss, {})[float(factor or 1)] = float(row["valid_accuracy"])
    return {loss: found for loss, found in tried.items() if len(found) > 1}


@pytest.mark.parametrize(("loss", "found"), tried_factors().items())
def test_the_benchmarks_weights_are_those_that_were_found(loss, found):
    within = [factor for factor, accuracy in found.items() if max(found.values()) - accuracy <= 0.005 + 1e-9]
    source = recipes.recipe(loss, "benchmark").source
    said = re.search(r"weight × ([\d.]+)", source)
    if loss == "explanation_matching":  # it is there for the explanations, not for the accuracy
        assert said is None
    else:
        assert (float(said[1]) if said else 1.0) == max(within)


def test_every_loss_is_in_the_book():
    assert {getattr(losses, recipes.entry(name).loss) for name in recipes.names()} >= PUBLIC - BASES - {
        losses.SoftenedOutputs  # any Keras loss: it has no settings of its own
    }


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(ValueError, match=r"no loss 'hint' \(do you mean 'hints'"):
        losses.get("hint")
    with pytest.raises(ValueError, match=r"no recipe 'cifar10'. Take one of cifar100"):
        losses.get("hints", recipe="cifar10")
    with pytest.raises(TypeError, match=r"cannot be made of these settings: .*student_layer"):
        losses.get("hints", recipe="cifar100")
