"""The Keras tutorial's knowledge distillation, with its own arguments: Fashion-MNIST, or digits where it is missing.

Run: python examples/keras_tutorial_distillation.py [--quick]
Reference: Kenneth Borup, Knowledge Distillation, keras.io/examples/vision/knowledge_distillation
"""

import sys

import keras
from keras import layers

import kdkeras

quick = "--quick" in sys.argv
keras.utils.set_random_seed(0)
try:
    data = kdkeras.datasets.fashion_mnist(limit=10_000)
except FileNotFoundError:
    data = kdkeras.datasets.digits()
(x_train, y_train), (x_test, y_test) = data.arrays("train"), data.arrays("test")
if quick:
    x_train, y_train, x_test, y_test = x_train[:200], y_train[:200], x_test[:200], y_test[:200]
epochs = 1 if quick else 5


def network(width: int, name: str) -> keras.Model:
    """The tutorial's network: two strided convolutions and a linear classifier."""
    return keras.Sequential(
        [
            keras.Input(data.input_shape),
            layers.Conv2D(width, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.MaxPooling2D(2, strides=1, padding="same"),
            layers.Conv2D(2 * width, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(data.num_classes),
        ],
        name=name,
    )


def train(model: keras.Model) -> None:
    """Train on labels alone."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, metrics=[keras.metrics.SparseCategoricalAccuracy()])
    model.fit(x_train, y_train, epochs=epochs, verbose=2)


teacher, student = network(64, "teacher"), network(4, "student")
scratch = keras.models.clone_model(student)
scratch.set_weights(student.get_weights())
train(teacher)

distiller = kdkeras.Distiller(student=student, teacher=teacher)
distiller.compile(
    optimizer=keras.optimizers.Adam(),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
    student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    distillation_loss_fn=keras.losses.KLDivergence(),
    alpha=0.1,
    temperature=10,
)
distiller.fit(x_train, y_train, epochs=epochs, verbose=2)
train(scratch)

students = {"distilled": distiller.student, "from scratch": scratch}
print(f"\n{data.name}: test split\n{kdkeras.evaluate.compare(teacher, students, (x_test, y_test), latency=False)}")
