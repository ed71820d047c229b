"""One page of everything that explains a teacher and its student."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import kdkeras
from kdkeras import explain, report


def cnn(filters, name, activation="softmax"):
    keras.utils.set_random_seed(filters)
    body = [layers.Conv2D(filters, 3, activation="relu", name="conv"), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(3, activation=activation)], name=name)


def images(n=8):
    return np.random.default_rng(0).random((n, 8, 8, 1)).astype("float32")


def titles(page):
    return [section.title for section in page.sections]


def test_the_page_of_images_has_every_part(tmp_path):
    keras.utils.set_random_seed(0)
    x, y = images(), np.arange(8) % 3
    tree = kdkeras.SoftDecisionTree(depth=2, num_classes=3)
    tree.fit(x, y, epochs=1, verbose=0)
    path = tmp_path / "page.html"
    page = explain.report(
        cnn(6, "big"),
        cnn(4, "small"),
        x,
        y,
        path=path,
        methods=["grad_cam", "saliency"],
        losses=[kdkeras.losses.Hints("conv", "conv")],
        tree=tree,
        class_names=["ant", "bee & fly", "cow"],
        measured=4,
    )
    assert titles(page) == ["Where they look", "By several methods", "Is it true?", "Inside", "As a tree"]
    found = explain.compare(cnn(6, "big"), cnn(4, "small"), x)
    assert page.sections[0].tables[0].lines == tuple(found.table())
    same, cosine = int(found.same_prediction.sum()), found.summary["cosine"].mean
    assert f"same class for {same} of 8 images" in page.lead and f"maps is {cosine:.2f}" in page.lead
    html = path.read_text(encoding="utf-8")
    assert html.count("<img") == sum(len(section.pictures) for section in page.sections) >= 9
    words = re.sub(r'"data:[^"]*"', "", html).replace("http://www.w3.org", "")  # a picture may spell anything
    assert "http" not in words and "bee &amp; fly" in words


def test_the_page_of_a_table_says_what_matters():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(30, 4)).astype("float32"), random.integers(0, 2, 30)
    models = [keras.Sequential([keras.Input((4,)), layers.Dense(width), layers.Dense(2)]) for width in (8, 3)]
    page = explain.report(*models, x, y, feature_names=["a", "b", "c", "d"], measured=5)
    assert titles(page) == ["What matters to them", "By several methods", "Is it true?", "Inside"]
    assert titles(explain.report(*models, x, measured=5))[0] == "By several methods"


def test_models_whose_maps_are_all_zero_still_have_a_page():
    teacher, student = cnn(6, "big", None), cnn(4, "small", None)
    for model in (teacher, student):
        kernel, bias = model.layers[-1].get_weights()
        model.layers[-1].set_weights([-np.abs(kernel), bias])  # nothing speaks for any class
    page = explain.report(teacher, student, images(), methods=["grad_cam"], measured=4)
    assert "No pair of Grad-CAM maps can be compared" in page.lead
    report.render(page)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=r"needs images .* or a table .* Received: shape \(2, 3, 4\)"):
        explain.report(cnn(6, "big"), cnn(4, "small"), np.zeros((2, 3, 4)))
