"""One contract for every distillation loss: a new loss is one more line here, or among the `LOSSES` of its group."""

import importlib

import keras
import pytest

from kdkeras import losses
from kdkeras.testing import check_loss

LOSSES = {
    "soft_targets": (losses.SoftTargets, 0.0),
    "soft_targets_t1": (lambda: losses.SoftTargets(temperature=1, weight=1), 0.0),
    "hard_targets": (losses.HardTargets, None),
    "hints": (lambda: losses.Hints("conv", "conv"), 0.0),
    "logit_matching": (losses.LogitMatching, 0.0),
    "softened_outputs": (lambda: losses.SoftenedOutputs(keras.losses.MeanSquaredError()), 0.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_keeps_the_contract(name):
    make, minimum = LOSSES[name]
    check_loss(make, minimum=minimum)


# Each group runs its own through the contract, between networks that have what they need.
GROUPS = (
    "test_contrastive",
    "test_explanations",
    "test_features",
    "test_logit_losses",
    "test_relations",
    "test_stages",
    "test_transformers",
)
BASES = {losses.DistillationLoss, losses.FeatureLoss, losses.RelationalLoss, losses.TemperedLoss}


def test_every_public_loss_is_under_the_contract():
    public = {value for value in vars(losses).values() if isinstance(value, type)} - BASES
    grouped = [make for group in GROUPS for make, *_ in importlib.import_module(group).LOSSES.values()]
    tested = {type(make()) for make in [*(make for make, _ in LOSSES.values()), *grouped]}
    assert tested == public


class WrongShape(losses.DistillationLoss):
    def call(self, student, teacher, labels=None):
        return keras.ops.mean(student.logits - teacher.logits)


class BatchDependent(losses.DistillationLoss):
    def call(self, student, teacher, labels=None):
        error = keras.ops.mean((student.logits - teacher.logits) ** 2, axis=-1)
        return error * keras.ops.mean(error)


class GradientCut(losses.DistillationLoss):
    def call(self, student, teacher, labels=None):
        return keras.ops.mean((keras.ops.stop_gradient(student.logits) - teacher.logits) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(WrongShape, "shape"), (BatchDependent, "depend on"), (GradientCut, "gradient by logits")],
)
def test_contract_catches_a_broken_loss(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_loss(broken)
