"""A convolutional student goes to the phone: distilled with soft targets and a hint, exported as int8, checked.

Run: python examples/student_for_the_phone.py [--quick]
"""

import sys
import tempfile
from pathlib import Path

import keras
from keras import layers

import kdkeras

epochs = 2 if "--quick" in sys.argv else 25
keras.utils.set_random_seed(0)
data = kdkeras.datasets.digits()
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(width: int, name: str) -> keras.Model:
    """A small convolutional network whose last convolution is called `features`."""
    return keras.Sequential(
        [
            keras.Input(data.input_shape),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu", name="features"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(data.num_classes),
        ],
        name=name,
    )


teacher, student = network(48, "teacher"), network(8, "student")
teacher.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
teacher.fit(*data.arrays("train"), epochs=epochs, verbose=0)

kdkeras.Distiller(student=student, teacher=teacher).compile(
    optimizer=keras.optimizers.Adam(1e-2),
    loss=loss,
    metrics=["accuracy"],
    distillation_loss=[
        kdkeras.losses.SoftTargets(temperature=4, weight=0.9),
        kdkeras.losses.Hints(student_layer="features", teacher_layer="features", weight=0.1),
    ],
    task_weight=0.1,
).fit(*data.arrays("train"), validation_data=data.arrays("valid"), epochs=epochs, verbose=2)

print(kdkeras.evaluate.compare(teacher, student, data.arrays("test")))

folder = Path(tempfile.mkdtemp(prefix="kdkeras-"))
print(kdkeras.export.tflite(student, folder / "student.tflite", quantize="int8", calibration=data.x_train))
