"""Which explanation of a network on digits is true of it? Four of them, measured against the network and random maps.

Run: python examples/is_the_explanation_true.py [--quick] [PICTURE.png]
"""

import sys

import keras
from keras import layers
from tabulate import tabulate

import kdkeras
from kdkeras import explain

quick = "--quick" in sys.argv
pictures = [word for word in sys.argv[1:] if word.endswith(".png")]
keras.utils.set_random_seed(0)
data = kdkeras.datasets.digits()

convolutions = [layers.Conv2D(32, 3, activation="relu", name=name) for name in ("first", "middle", "last")]
network = keras.Sequential(
    [keras.Input(data.input_shape), *convolutions, layers.GlobalAveragePooling2D(), layers.Dense(data.num_classes)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
network.fit(*data.arrays("train"), epochs=1 if quick else 20, verbose=0)
print(f"Test accuracy: {network.evaluate(*data.arrays('test'), verbose=0)[1]:.3f}")


def ink(model, x, target):
    """The image itself, which knows nothing of the model."""
    return x[..., 0]


images = data.x_test[: 8 if quick else 100]
predicted = network.predict(images, verbose=0).argmax(axis=1)
options = {"target": predicted, "steps": 8 if quick else 32, "samples": 20 if quick else 200, "randomise": True}
reports = {
    f"Grad-CAM, {layer} layer": explain.faithfulness(
        network, images, explain.attribute(network, images, predicted, layer=layer), **options
    )
    for layer in ("first", "last")
}
gradient = explain.attribute(network, images, predicted, "gradient_times_input")
reports["gradient × input"] = explain.faithfulness(network, images, gradient, **options)
itself = ink(network, images, predicted)
reports["the image itself"] = explain.faithfulness(network, images, itself, explainer=ink, **options)
reports["random maps"] = reports["the image itself"].control

rows = []
for name, report in reports.items():
    means = [f"{report.summary[measure].mean:.3f}" for measure in ("deletion", "insertion", "mu_fidelity")]
    random = report.randomisation
    rows.append((name, *means, "" if random is None else f"{random.summary['spearman'][-1].mean:.2f}"))
headers = ("explanation", "deletion ↓", "insertion ↑", "mu-fidelity ↑", "Spearman to a random network's ↓")
print(tabulate(rows, headers, disable_numparse=True, colalign=("left", *("right",) * 4)))
for picture in pictures:
    reports["gradient × input"].plot().savefig(picture, dpi=110)
