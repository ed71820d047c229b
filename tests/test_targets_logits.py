"""`targets.logits`: the same numbers from every kind of teacher, against numpy, scipy and the libraries themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from kdkeras import export, targets

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 4)).astype("float32")
KERNEL, BIAS = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=3).astype("float32")
LOGITS = X.astype("float64") @ KERNEL + BIAS
SMALLEST = np.log(1e-7)


def keras_model(activation=None):
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, activation)])
    model.set_weights([KERNEL, BIAS])
    return model


def linear(x):
    return x @ KERNEL + BIAS


# --- Keras and functions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_keras_models_give_their_logits_whatever_they_end_in(activation):
    z = targets.logits(keras_model(activation), X, batch_size=16)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, LOGITS, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "softmax", "sigmoid"])
def test_functions_with_each_head(head):
    ends = {"linear": lambda z: z, "softmax": lambda z: special.softmax(z, axis=1), "sigmoid": special.expit}
    z = targets.logits(lambda x: ends[head](linear(x)), X, head=head, batch_size=16)
    expected = special.log_softmax(LOGITS, axis=1) if head == "softmax" else LOGITS
    np.testing.assert_allclose(z, expected, atol=1e-4)


def test_probabilities_are_clipped_at_epsilon():
    z = targets.logits(lambda x: x, np.array([[1.0, 0.0], [0.25, 0.75]]), head="softmax")
    np.testing.assert_allclose(z, [[0, SMALLEST], [np.log(0.25), np.log(0.75)]], rtol=1e-6)
    z = targets.logits(lambda x: x, np.array([[1.0, 0.0]]), head="sigmoid", epsilon=1e-3)
    np.testing.assert_allclose(z, [[special.logit(0.999), special.logit(0.001)]], rtol=1e-5)
    np.testing.assert_allclose(
        targets.logits(lambda x: x, np.array([[3.0, 1.0]]), head="softmax"), np.log([[0.75, 0.25]])
    )


def test_functions_see_batches_in_their_nest_and_datasets_are_taken(capsys):
    sizes = []

    def teacher(x):
        sizes.append(len(x["left"]))
        return linear(np.concatenate([x["left"], x["right"]], axis=1))

    z = targets.logits(teacher, {"left": X[:, :1], "right": X[:, 1:]}, batch_size=20)
    np.testing.assert_allclose(z, LOGITS, atol=1e-5)
    assert sizes == [20, 20, 10]
    labelled = tf.data.Dataset.from_tensor_slices((X, np.zeros(50))).batch(16)
    for data in (labelled, labelled.map(lambda x, y: x), iter([(X[:30],), (X[30:],)])):
        np.testing.assert_allclose(targets.logits(linear, data), LOGITS, atol=1e-5)
    assert capsys.readouterr().out == ""
    targets.logits(linear, X, batch_size=10, verbose=1)
    assert "5/5" in capsys.readouterr().out


def test_a_tflite_file(tmp_path):
    model = keras_model("softmax")
    path = tmp_path / "model.tflite"
    export.tflite(model, path)
    z = targets.logits(export.load(path), X, head="softmax")
    np.testing.assert_allclose(z, special.log_softmax(LOGITS, axis=1), atol=1e-5)
    for given in (path, str(path)):
        with pytest.raises(TypeError, match=r"not the path of one.*kdkeras.export.load"):
            targets.logits(given, X)


# --- scikit-learn -------------------------------------------------------------------------------------------------


def test_scikit_learn_classifiers():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = LOGITS.argmax(axis=1)
    forest = RandomForestClassifier(10, random_state=0).fit(X, y)
    p = forest.predict_proba(X)
    assert (p == 0).any()
    np.testing.assert_allclose(targets.logits(forest, X), np.log(np.maximum(p, 1e-7)), rtol=1e-6)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    np.testing.assert_allclose(targets.logits(pipeline, X), pipeline.predict_log_proba(X), atol=1e-4)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, y)
    z = search.best_estimator_.decision_function(X)
    np.testing.assert_allclose(targets.logits(search, X), special.log_softmax(z, axis=1), atol=1e-4)
    np.testing.assert_allclose(
        targets.soft(targets.logits(search, X), temperature=4), targets.soft(z, temperature=4), atol=1e-6
    )


def test_scikit_learn_several_labels_and_regressors():
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.neural_network import MLPClassifier

    labels = (LOGITS > 0).astype(int)
    forest = RandomForestClassifier(10, random_state=0).fit(X, labels)
    p = np.clip(np.stack([label[:, 1] for label in forest.predict_proba(X)], axis=1), 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(targets.logits(forest, X), special.logit(p), rtol=1e-5)
    mlp = MLPClassifier((4,), max_iter=5, random_state=0, solver="adam", tol=1e9, n_iter_no_change=1).fit(X, labels)
    np.testing.assert_allclose(targets.logits(mlp, X, head="sigmoid"), special.logit(mlp.predict_proba(X)), atol=1e-5)
    with pytest.raises(ValueError, match=r"rows that sum to 1 unless.*head='sigmoid' for independent labels"):
        targets.logits(mlp, X)
    np.testing.assert_allclose(targets.logits(LinearRegression().fit(X, LOGITS), X), LOGITS, atol=1e-5)
    one = RandomForestRegressor(5, random_state=0).fit(X, LOGITS[:, 0])
    assert targets.logits(one, X).shape == (50, 1)
    np.testing.assert_allclose(targets.logits(one, X)[:, 0], one.predict(X), rtol=1e-6)


def test_scikit_learn_refusals():
    from sklearn.cluster import KMeans
    from sklearn.exceptions import NotFittedError
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    y = LOGITS.argmax(axis=1)
    svc = LinearSVC().fit(X, y)
    with pytest.raises(
        ValueError, match=r"`predict_proba`. Received: LinearSVC.*CalibratedClassifierCV.*decision_function"
    ):
        targets.logits(svc, X)
    np.testing.assert_allclose(targets.logits(svc.decision_function, X), svc.decision_function(X), rtol=1e-6)
    with pytest.raises(TypeError, match=r"classifier or a regressor. Received: KMeans"):
        targets.logits(KMeans(2, n_init=1, random_state=0).fit(X), X)
    with pytest.raises(NotFittedError):
        targets.logits(LogisticRegression(), X)
    several = DecisionTreeClassifier().fit(X, np.stack([y, 2 - y], axis=1))
    with pytest.raises(ValueError, match=r"several labels of two. Received: DecisionTreeClassifier with \[3, 3\]"):
        targets.logits(several, X)


# --- PyTorch and ONNX ---------------------------------------------------------------------------------------------


def test_a_pytorch_module_is_asked_in_eval_mode_and_left_as_it_was():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(4, 3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(KERNEL.T))
        layer.bias.copy_(torch.tensor(BIAS))
    frozen = torch.nn.Dropout(0.5).eval()
    module = torch.nn.Sequential(torch.nn.Dropout(0.9), frozen, layer, torch.nn.BatchNorm1d(3, affine=False).double())
    z = targets.logits(module, X, batch_size=16)
    np.testing.assert_allclose(z, LOGITS / np.sqrt(1 + 1e-5), atol=1e-5)  # untouched running statistics: 0 and 1
    assert [part.training for part in module] == [True, False, True, True]
    assert layer.weight.grad is None
    assert int(module[3].num_batches_tracked) == 0


def test_pytorch_modules_of_several_inputs():
    torch = pytest.importorskip("torch")

    class TwoInputs(torch.nn.Module):
        def forward(self, left, right):
            return torch.cat([left, right], dim=1) @ torch.tensor(KERNEL)

    expected = X.astype("float64") @ KERNEL
    for x in ((X[:, :1], X[:, 1:]), {"right": X[:, 1:], "left": X[:, :1]}):
        np.testing.assert_allclose(targets.logits(TwoInputs(), x, batch_size=7), expected, atol=1e-5)


def onnx_session(batch="n", outputs=("z",)):
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x", "kernel"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["z"]),
    ]
    nodes += [helper.make_node("Softmax", ["z"], ["p"], axis=-1)] if "p" in outputs else []
    stored = [onnx.numpy_helper.from_array(KERNEL, "kernel"), onnx.numpy_helper.from_array(BIAS, "bias")]
    given = [helper.make_tensor_value_info("x", kind, [batch, 4])]
    returned = [helper.make_tensor_value_info(name, kind, [batch, 3]) for name in outputs]
    graph = helper.make_graph(nodes, "linear", given, returned, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", ["n", 1, 16])
def test_an_onnx_session_whether_its_batch_size_is_open_or_fixed(batch):
    session = onnx_session(batch)
    np.testing.assert_allclose(targets.logits(session, X.astype("float64"), batch_size=20), LOGITS, atol=1e-5)
    np.testing.assert_allclose(targets.logits(session, {"x": X}), LOGITS, atol=1e-5)
    with pytest.raises(ValueError, match=r"inputs named \['x'\].*Received: \['image'\]"):
        targets.logits(session, {"image": X})


def test_an_onnx_session_of_several_outputs_is_refused_and_a_function_of_it_taken():
    session = onnx_session(outputs=("z", "p"))
    with pytest.raises(
        ValueError, match=r"one output. Received: \['z', 'p'\].*lambda x: session.run\(\['p'\], \{'x': x\}\)"
    ):
        targets.logits(session, X)
    z = targets.logits(lambda x: session.run(["p"], {"x": x})[0], X, head="softmax")
    np.testing.assert_allclose(z, special.log_softmax(LOGITS, axis=1), atol=1e-5)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: targets.logits(lambda x: special.softmax(x, axis=1), X),
            ValueError,
            "rows that sum to 1.*head='softmax'",
        ),
        (lambda: targets.logits(lambda x: x, X, head="softmax"), ValueError, "at least 0.*Received: values from -"),
        (lambda: targets.logits(lambda x: x, X, head="sigmoid"), ValueError, r"in \[0, 1\].*head='linear'"),
        (lambda: targets.logits(lambda x: x[:1], X), ValueError, r"one row of scores per sample.*\(1, 4\).*50 samples"),
        (lambda: targets.logits(lambda x: x[:, 0], X), ValueError, r"Received: shape \(50,\)"),
        (
            lambda: targets.logits(lambda x: {"a": x, "b": x}, X),
            ValueError,
            "one array.*dict of 2.*the one that you want",
        ),
        (lambda: targets.logits(lambda x: [x, x, x], X), ValueError, "one array of scores.*list of 3"),
        (lambda: targets.logits(lambda x: x / 0 * 0, X + 1), ValueError, "`<lambda>` contains 200 NaN"),
        (lambda: targets.logits(lambda x: np.full((len(x), 2), "a"), X), TypeError, "real numbers.*<U1"),
        (lambda: targets.logits(linear, X[:0]), ValueError, "at least one sample"),
        (lambda: targets.logits(linear, (X, X[:3])), ValueError, r"one number of samples. Received: \[3, 50\]"),
        (lambda: targets.logits(linear, X, head="logits"), ValueError, "'linear', 'softmax', 'sigmoid'.*head='logits'"),
        (lambda: targets.logits(linear, X, batch_size=0), ValueError, "batch_size=0"),
        (lambda: targets.logits(linear, X, epsilon=0), ValueError, "epsilon=0"),
        (lambda: targets.logits(keras_model(), X, head="linear"), ValueError, "shows its own head"),
        (lambda: targets.logits(keras.Model, X), TypeError, "Received: .* of type type"),
        (lambda: targets.logits(3, X), TypeError, "Received: 3 of type int"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_every_teacher_gives_targets():
    torch = pytest.importorskip("torch")

    class Linear(torch.nn.Module):
        def forward(self, x):
            return x @ torch.tensor(KERNEL) + torch.tensor(BIAS)

    expected = special.softmax(LOGITS / 4, axis=1)
    for teacher in (keras_model("softmax"), linear, Linear(), onnx_session() if _has_onnx() else linear):
        np.testing.assert_allclose(targets.from_teacher(teacher, X, temperature=4.0), expected, atol=1e-6)


def _has_onnx():
    import importlib.util

    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
