"""Where does a network on digits look? The same images by every method of `explain.attribute`, in one picture.

Run: python examples/ways_to_look.py [--quick] [PICTURE.png]
"""

import sys

import keras
from keras import layers

import kdkeras
from kdkeras import explain

quick = "--quick" in sys.argv
pictures = [word for word in sys.argv[1:] if word.endswith(".png")]
keras.utils.set_random_seed(0)
data = kdkeras.datasets.digits()

convolutions = [
    layers.Conv2D(24, 3, activation="relu", padding="same", name=name) for name in ("first", "middle", "last")
]
head = [layers.GlobalAveragePooling2D(), layers.Dense(data.num_classes, activation="softmax")]
network = keras.Sequential([keras.Input(data.input_shape), *convolutions, *head], name="network")
network.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
network.fit(*data.arrays("train"), epochs=1 if quick else 20, verbose=0)
print(f"Test accuracy: {network.evaluate(*data.arrays('test'), verbose=0)[1]:.3f}")

images = data.x_test[:6]
predicted = network.predict(images, verbose=0).argmax(axis=1)
methods = [
    explain.GradCAM(),
    explain.GradCAMPlusPlus(),
    explain.LayerCAM(),
    explain.ScoreCAM(),
    explain.Saliency(),
    explain.SmoothGrad(samples=5 if quick else 50),
    explain.GradientTimesInput(),
    explain.IntegratedGradients(),
    explain.Occlusion(window=2),
    explain.RISE(masks=20 if quick else 1000, cells=4),
]
explanations = [explain.attribute(network, images, predicted, method) for method in methods]
for explanation in explanations:
    against = (explanation.maps < -0.1).mean()
    print(
        f"{explanation.title:22} strong in {(explanation.maps > 0.5).mean():5.1%} of the pixels, against {against:5.1%}"
    )
for picture in pictures:
    explain.method_grid(explanations, class_names=data.class_names).savefig(picture, dpi=90)
