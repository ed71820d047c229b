"""Every loss, alone in `Distiller.fit`: it lowers its own quantity on held-out data, and survives saving."""

import importlib

import keras
import numpy as np
import pytest
import test_contract

import kdkeras
from kdkeras.testing import tiny_cnn

CASES = {name: (make, tiny_cnn) for name, (make, _) in test_contract.LOSSES.items()}
for group in test_contract.GROUPS:
    for name, (make, _, network) in importlib.import_module(group).LOSSES.items():
        CASES[f"{group.removeprefix('test_')}-{name}"] = (make, network)


def data(model, count, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((count, *model.input_shape[1:])).astype("float32")
    x *= rng.random((count, *[1] * (x.ndim - 1))) * 2  # samples that the models can tell apart
    return x.astype("float32"), rng.integers(0, 3, (count, *model.output_shape[1:-1]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # a loss of features never reaches the head
@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_loss_on_held_out_data_and_saving_keeps_it(name, tmp_path):
    make, network = CASES[name]
    keras.utils.set_random_seed(0)
    student, teacher = network(name="student"), network(width=6, name="teacher")
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # so few steps: statistics of Keras' 0.99 would lag behind the weights
    loss = make()
    x, labels = data(teacher, 40 if "index" in loss.needs else 96, 1)  # no more samples than a memory has places for
    held_out = data(teacher, 32, 2)
    model = kdkeras.Distiller(student=student, teacher=teacher)
    model.compile(keras.optimizers.Adam(0.0), None, distillation_loss=loss, task_weight=0)
    if "index" in loss.needs:
        x = kdkeras.Indexed(x, np.arange(len(labels)))
    model.fit(x, labels, epochs=5, batch_size=16, verbose=0)  # statistics alone
    model.optimizer.learning_rate = 1e-2

    def quantity(distiller):
        return distiller.evaluate(*held_out, verbose=0, return_dict=True)[loss.name]

    before = quantity(model)
    model.fit(x, labels, epochs=20, batch_size=16, verbose=0)
    after = quantity(model)
    assert after < before
    model.save(tmp_path / "distiller.keras")
    np.testing.assert_allclose(quantity(kdkeras.load_model(tmp_path / "distiller.keras")), after, rtol=1e-4, atol=1e-6)
