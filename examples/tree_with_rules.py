"""A soft decision tree on breast_cancer: distilled from a network, read as rules, one decision explained and undone.

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
names = {"feature_names": data.feature_names, "class_names": data.class_names}
print(tree.export_text(**names))

print("\nThe first test sample, split by split:")
print(tree.explain_sample(data.x_test[0], **names))
print("\nWhat would undo that:")
print(tree.counterfactual(data.x_test[0], **names))
print("Most important features:")
for index in tree.feature_importances_.argsort()[::-1][:5]:
    print(f"  {data.feature_names[index]:<24}{tree.feature_importances_[index]:.3f}")
