import gzip
import zlib

import keras
import numpy as np
import pytest

from kdkeras import datasets
from kdkeras.datasets import fashion

BUNDLED = ["digits", "wine", "breast_cancer", "diabetes"]
SPLITS = ("train", "valid", "test")
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = fashion._IDX_FILES


def idx_bytes(array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return head + array.astype("uint8").tobytes()


@pytest.fixture(params=["packed", "plain"])
def idx_folder(request, tmp_path):
    """240 + 50 images; the label of an image is its first pixel, so that a wrong pairing shows."""
    for images_name, labels_name, count in ((IMAGES, LABELS, 240), (TEST_IMAGES, TEST_LABELS, 50)):
        rng = np.random.default_rng(count)
        images = rng.integers(0, 256, (count, 28, 28))
        images[:, 0, 0] = labels = rng.permutation(np.arange(count) % 10)
        for name, array in ((images_name, images), (labels_name, labels)):
            if request.param == "packed":
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
            else:
                (tmp_path / name).write_bytes(idx_bytes(array))
    return tmp_path


@pytest.fixture
def packed_folder(tmp_path):
    labels = np.arange(240) % 10
    for name in (IMAGES, TEST_IMAGES):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((240, 28, 28)))))
    for name in (LABELS, TEST_LABELS):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "sizes", "shape", "classes", "fingerprint"),
    [
        ("digits", (1077, 360, 360), (8, 8, 1), 10, 1473915990),
        ("wine", (106, 36, 36), (13,), 3, 2493852572),
        ("breast_cancer", (341, 114, 114), (30,), 2, 3776822018),
        ("diabetes", (264, 89, 89), (10,), 0, 1283237034),
    ],
)
def test_bundled_data_have_the_documented_shape_and_the_published_split(name, sizes, shape, classes, fingerprint):
    data = datasets.load(name)
    assert tuple(len(data.arrays(split)[0]) for split in SPLITS) == sizes
    assert data.input_shape == shape
    assert data.num_classes == classes
    for split in SPLITS:
        x, y = data.arrays(split)
        assert x.dtype == np.float32
        assert y.dtype == (np.int32 if classes else np.float32)
        assert np.isfinite(x).all()
        assert y.shape == (len(x),)
    # A change of the split changes every published number, so it must not go unnoticed.
    whole = np.rint(data.y_test * data.target_scale + data.target_mean).astype("<i4")
    assert zlib.crc32(whole.tobytes()) == fingerprint


@pytest.mark.parametrize("name", BUNDLED)
def test_splits_are_disjoint_complete_and_the_same_each_time(name):
    data, again = datasets.load(name), datasets.load(name)
    rows = []
    for split in SPLITS:
        x, y = data.arrays(split)
        np.testing.assert_array_equal(x, again.arrays(split)[0])
        np.testing.assert_array_equal(y, again.arrays(split)[1])
        rows += [row.tobytes() for row in x]
    assert len(rows) == {"digits": 1797, "wine": 178, "breast_cancer": 569, "diabetes": 442}[name]
    assert len(set(rows)) == len(rows)  # no sample stands in two splits


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer"])
def test_each_class_has_the_same_share_in_each_split(name):
    data = datasets.load(name)
    shares = [np.bincount(data.arrays(split)[1]) / len(data.arrays(split)[1]) for split in SPLITS]
    np.testing.assert_allclose(shares[1], shares[0], atol=0.02)
    np.testing.assert_allclose(shares[2], shares[0], atol=0.02)


def test_regression_targets_are_stratified_and_standardised_by_train():
    from sklearn.datasets import load_diabetes

    data = datasets.diabetes()
    assert data.y_train.mean() == pytest.approx(0, abs=1e-6)
    assert data.y_train.std() == pytest.approx(1, abs=1e-6)
    assert abs(data.y_test.mean()) < 0.1
    targets = np.concatenate([data.y_train, data.y_valid, data.y_test]) * data.target_scale + data.target_mean
    np.testing.assert_allclose(np.sort(targets), np.sort(load_diabetes().target), rtol=1e-5)


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes"])
def test_tables_are_standardised_with_the_training_split_only(name):
    data = datasets.load(name)
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data.x_train.std(axis=0), 1, atol=1e-5)
    assert np.abs(data.x_test.mean(axis=0)).max() > 1e-3
    assert len(data.feature_names) == data.input_shape[0]


def test_digits_are_images_between_0_and_1_with_their_own_labels():
    from sklearn.datasets import load_digits

    data, bunch = datasets.digits(), load_digits()
    label = {
        (image / 16).astype("float32").tobytes(): target
        for image, target in zip(bunch.images, bunch.target, strict=True)
    }
    for split in SPLITS:
        x, y = data.arrays(split)
        assert x.min() == 0
        assert x.max() == 1
        assert [label[image.tobytes()] for image in x] == y.tolist()


def test_tf_data_gives_every_sample_once_and_shuffles_the_same_way_each_time():
    data = datasets.wine()
    plain = np.concatenate([y.numpy() for _, y in data.tf_data("train", batch_size=50)])
    np.testing.assert_array_equal(plain, data.y_train)
    one, two = ([x.numpy() for x, _ in data.tf_data("train", shuffle_seed=3)] for _ in range(2))
    assert [len(batch) for batch in one] == [32, 32, 32, 10]
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))
    assert not np.array_equal(np.concatenate(one), data.x_train)
    np.testing.assert_allclose(np.concatenate(one).sum(axis=0), data.x_train.sum(axis=0), atol=1e-3)


def test_a_keras_model_fits_on_it():
    keras.utils.set_random_seed(0)
    data = datasets.wine()
    model = keras.Sequential([keras.Input(data.input_shape), keras.layers.Dense(data.num_classes)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(data.tf_data("train", shuffle_seed=0), epochs=20, shuffle=False, verbose=0)
    assert model.evaluate(data.tf_data("valid"), verbose=0)[1] > 0.85


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load("cifar"), "must be one of digits, wine.*Received: name='cifar'"),
        (lambda: datasets.wine().arrays("all"), "must be one of train, valid, test.*'all'"),
        (lambda: datasets.wine().tf_data("train", batch_size=0), "at least 1.*batch_size=0"),
        (lambda: datasets.fashion_mnist(limit=9), "at least 10"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_fashion_mnist_reads_idx_files(idx_folder):
    data = datasets.fashion_mnist(folder=idx_folder)
    assert [len(data.arrays(split)[1]) for split in SPLITS] == [220, 20, 50]
    assert data.input_shape == (28, 28, 1)
    assert data.class_names[0] == "T-shirt/top"
    assert np.bincount(data.y_valid).tolist() == [2] * 10
    for split in SPLITS:
        x, y = data.arrays(split)
        assert x.dtype == np.float32
        assert 0 <= x.min() <= x.max() <= 1
        np.testing.assert_array_equal(np.rint(x[:, 0, 0, 0] * 255), y)


def test_fashion_mnist_limit_is_stratified_and_keeps_pairs(idx_folder):
    data = datasets.fashion_mnist(folder=idx_folder, limit=30)
    assert [len(data.arrays(split)[1]) for split in SPLITS] == [30, 20, 30]
    assert np.bincount(data.y_train).tolist() == [3] * 10
    np.testing.assert_array_equal(np.rint(data.x_train[:, 0, 0, 0] * 255), data.y_train)


def test_the_real_fashion_mnist_or_how_to_get_it():
    """Where the Debian package is installed, its data are checked; elsewhere, the error that names the package is."""
    if not fashion._DEBIAN_FOLDER.is_dir():
        with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
            datasets.fashion_mnist(folder=fashion._DEBIAN_FOLDER)
        return
    data = datasets.fashion_mnist()
    assert [np.bincount(data.arrays(split)[1]).tolist() for split in SPLITS] == [[5500] * 10, [500] * 10, [1000] * 10]
    assert data.y_test[:5].tolist() == [9, 2, 1, 1, 6]  # the official order
    assert data.x_train.mean() == pytest.approx(0.286, abs=0.002)  # the published mean of the training images


def test_fashion_mnist_is_looked_for_in_the_debian_folder(idx_folder, monkeypatch):
    monkeypatch.setattr(fashion, "_DEBIAN_FOLDER", idx_folder)
    assert len(datasets.load("fashion_mnist").y_test) == 50


def test_fashion_mnist_falls_back_to_keras_cache_and_then_to_a_clear_error(packed_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(fashion, "_DEBIAN_FOLDER", tmp_path / "absent")
    asked = []

    def cached(name, origin, cache_subdir):
        asked.append((origin, cache_subdir))
        return str(packed_folder / name)

    monkeypatch.setattr(keras.utils, "get_file", cached)
    assert len(datasets.fashion_mnist().y_test) == 240
    assert asked[0][0].endswith(f"/{IMAGES}.gz")
    assert asked[0][1] == "datasets/fashion-mnist"

    def unplugged(name, origin, cache_subdir):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.utils, "get_file", unplugged)
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist.*folder="):
        datasets.fashion_mnist()


def test_a_folder_without_the_files_says_which_is_missing(packed_folder):
    (packed_folder / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no '{TEST_LABELS}.gz'"):
        datasets.fashion_mnist(folder=packed_folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, lambda good: good[:-20], "damaged"),  # a truncated archive
        (IMAGES, lambda good: b"no archive", "damaged"),
        (IMAGES, lambda good: good[:30] + bytes(20) + good[50:], "damaged"),
        (IMAGES, lambda good: gzip.compress(gzip.decompress(good)[:-1]), "188176 bytes.*188175.*truncated"),
        (IMAGES, lambda good: gzip.compress(gzip.decompress(good)[:7]), "Received: 7; the file is truncated"),
        (IMAGES, lambda good: gzip.compress(b""), "an empty file"),
        (IMAGES, lambda good: gzip.compress(idx_bytes(np.zeros(240))), "with 3 dimensions"),  # labels named images
        (IMAGES, lambda good: gzip.compress(idx_bytes(np.zeros((240, 8, 8)))), "28×28"),
        (LABELS, lambda good: gzip.compress(idx_bytes(np.zeros(239))), "240 labels.*239"),
        (LABELS, lambda good: gzip.compress(idx_bytes(np.full(240, 12))), "from 0 to 9.*12"),
    ],
)
def test_a_damaged_or_mislabelled_file_is_named(packed_folder, name, content, message):
    path = packed_folder / f"{name}.gz"
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        datasets.fashion_mnist(folder=packed_folder)
    assert name in str(error.value)


def test_too_few_images_to_split_are_refused(packed_folder):
    (packed_folder / f"{IMAGES}.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((50, 28, 28)))))
    (packed_folder / f"{LABELS}.gz").write_bytes(gzip.compress(idx_bytes(np.arange(50) % 10)))
    with pytest.raises(ValueError, match=r"at least 120 images.*Received: 50"):
        datasets.fashion_mnist(folder=packed_folder)
