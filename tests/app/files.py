"""Small models in files, for the tests of the page."""

import keras
import numpy as np

import kdkeras


def write(folder):
    """Write a teacher, a student, its TFLite file and a tree of digits, none of them trained."""
    paths = {name: folder / f"{name}.keras" for name in ("teacher", "student", "tree")} | {
        "tflite": folder / "student.tflite"
    }
    models = {name: network(name, width) for name, width in (("teacher", 8), ("student", 4))}
    for name, model in models.items():
        model.save(paths[name])
    kdkeras.export.tflite(models["student"], paths["tflite"])
    tree = kdkeras.SoftDecisionTree(depth=3, num_classes=10)
    tree.build((None, 8, 8, 1))
    tree.predict(np.zeros((1, 8, 8, 1)), verbose=0)
    tree.save(paths["tree"])


def network(name, width):
    """Return a network of digits with two layers to look at."""
    keras.utils.set_random_seed(width)
    convs = [keras.layers.Conv2D(width, 3, activation="relu", name=place) for place in ("early", "late")]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="head")]
    return keras.Sequential([keras.Input((8, 8, 1)), *convs, *head], name=name)
