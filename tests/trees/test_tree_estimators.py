"""The scikit-learn face of soft trees."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

from kdkeras.trees import SoftDecisionTreeClassifier, SoftDecisionTreeRegressor


def _data(n=120):
    x = np.random.default_rng(0).normal(size=(n, 3))
    return x, x[:, 0] + 0.1 * x[:, 1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SoftDecisionTreeClassifier, SoftDecisionTreeRegressor])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_the_estimator(kind):
    results = check_estimator(kind(depth=2, epochs=15, batch_size=16))
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    assert sum(result["status"] == "passed" for result in results) > 40


def test_labels_of_any_type_are_learned_and_the_tree_can_be_read():
    x, values = _data()
    y = np.where(values > 0, "yes", "no")
    model = SoftDecisionTreeClassifier(depth=2, epochs=25, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.9
    assert model.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(model.predict(x), model.classes_[model.predict_proba(x).argmax(axis=1)])
    assert model.feature_importances_.argmax() == 0
    assert "class yes" in model.tree_.export_text(class_names=model.classes_)
    again = clone(model).fit(x, y)
    np.testing.assert_allclose(again.predict_proba(x), model.predict_proba(x), rtol=1e-6)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))


def test_targets_are_predicted_in_their_own_unit():
    x, y = _data()
    model = SoftDecisionTreeRegressor(depth=3, epochs=40, penalty=0.01, random_state=0).fit(x, 1000 + 50 * y)
    assert model.score(x, 1000 + 50 * y) > 0.85
    leaf_mean = model.tree_.predict(x, verbose=0)[:, 0]
    np.testing.assert_allclose(model.predict(x), leaf_mean * model.target_scale_ + model.target_mean_)
    assert model.target_mean_ == pytest.approx((1000 + 50 * y).mean())


def test_a_search_sets_the_settings_of_the_tree():
    x, values = _data(60)
    search = GridSearchCV(
        SoftDecisionTreeClassifier(epochs=2, random_state=0), {"depth": [1], "beta": ["learned"]}, cv=2
    )
    search.fit(x, values > 0)
    assert search.best_estimator_.tree_.depth == search.best_params_["depth"]
    assert search.best_estimator_.tree_.beta == "learned"


def test_what_cannot_be_fitted_is_said():
    x, _ = _data(8)
    with pytest.raises(ValueError, match=r"at least 2 classes. Received: 1 class"):
        SoftDecisionTreeClassifier().fit(x, np.zeros(8))
    with pytest.raises(NotFittedError):
        SoftDecisionTreeRegressor().predict(x)
    with pytest.raises(NotFittedError):
        _ = SoftDecisionTreeClassifier().feature_importances_
    with pytest.raises(NotFittedError):
        SoftDecisionTreeClassifier().predict(x)
