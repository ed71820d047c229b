"""A soft decision tree on breast_cancer: distilled from a network, read as rules, and one decision explained.

Run: python examples/tree_with_rules.py [--quick]
"""

import sys

import keras
from keras import layers

import kdkeras

epochs = 2 if "--quick" in sys.argv else 30
keras.utils.set_random_seed(0)
data = kdkeras.datasets.breast_cancer()

teacher = keras.Sequential(
    [
        keras.Input(data.input_shape),
        layers.Dense(64, activation="relu"),
        layers.Dropout(0.2),
        layers.Dense(64, activation="relu"),
        layers.Dense(data.num_classes, activation="softmax"),
    ],
    name="teacher",
)
teacher.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
teacher.fit(*data.arrays("train"), epochs=epochs, verbose=0)

tree = kdkeras.SoftDecisionTree(depth=3, num_classes=data.num_classes)
tree.distill(teacher, data.x_train, epochs=epochs, verbose=0)

print(kdkeras.evaluate.compare(teacher, {"tree": tree}, data.arrays("test"), latency=False))
print()
print(tree.export_text(feature_names=data.feature_names, class_names=data.class_names))

path = tree.decision_path(data.x_test[:1])
print("\nThe first test sample ends in leaf", int(path.leaf[0]), "by the splits", path.nodes[0].tolist())
print("Most important features:")
for index in tree.feature_importances_.argsort()[::-1][:5]:
    print(f"  {data.feature_names[index]:<24}{tree.feature_importances_[index]:.3f}")
