"""Map similarities against hand-worked values, scipy, and plain loops."""

import numpy as np
import pytest
from scipy import stats

from kdkeras import metrics

MEASURES = [metrics.cosine, metrics.pearson, metrics.spearman, metrics.ssim, metrics.top_k_iou]


def maps(seed, n=4, height=9, width=11):
    """Maps in [0, 1] with a ReLU's floor of zeros."""
    return np.maximum(np.random.default_rng(seed).normal(size=(n, height, width)), 0) / 5


def ssim_by_loops(a, b, data_range=1.0, window=7):
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(a.shape[0] - window + 1):
        for j in range(a.shape[1] - window + 1):
            p, q = a[i : i + window, j : j + window], b[i : i + window, j : j + window]
            covariance = np.mean((p - p.mean()) * (q - q.mean()))
            values.append(
                (2 * p.mean() * q.mean() + c1)
                * (2 * covariance + c2)
                / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (p.var() + q.var() + c2))
            )
    return np.mean(values)


def test_cosine_by_hand():
    a = np.array([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    b = np.array([[[0.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(metrics.cosine(a, b), [0.0, 0.5])


@pytest.mark.parametrize(("ours", "theirs"), [(metrics.pearson, stats.pearsonr), (metrics.spearman, stats.spearmanr)])
def test_correlations_agree_with_scipy(ours, theirs):
    a, b = maps(0), maps(1)
    expected = [theirs(p.ravel(), q.ravel()).statistic for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(ours(a, b), expected, atol=1e-12)


@pytest.mark.parametrize(("data_range", "window"), [(1.0, 7), (2.0, 7), (1.0, 3), (1.0, 9)])
def test_ssim_agrees_with_plain_loops(data_range, window):
    a, b = maps(2), maps(3)
    expected = [ssim_by_loops(p, q, data_range, window) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(metrics.ssim(a, b, data_range=data_range, window=window), expected, atol=1e-10)


def test_ssim_of_constant_maps_is_the_luminance_term():
    a, b = np.full((1, 8, 8), 0.2), np.full((1, 8, 8), 0.6)
    c1 = 0.01**2
    np.testing.assert_allclose(metrics.ssim(a, b), (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1))


def test_top_k_iou_by_hand():
    a = np.array([[[5, 4, 3, 2], [1, 0, 0, 0], [0, 0, 0, 0]]])
    b = np.array([[[5, 0, 3, 0], [1, 2, 0, 0], [0, 0, 0, 4]]])
    # k = ⌈0.25 · 12⌉ = 3: {0, 1, 2} and {0, 11, 2}
    np.testing.assert_allclose(metrics.top_k_iou(a, b, top_k=0.25), 2 / 4)
    # k = 12: all that is above the floor, {0, 1, 2, 3, 4} and {0, 2, 4, 5, 11}
    np.testing.assert_allclose(metrics.top_k_iou(a, b, top_k=1), 3 / 7)


def test_top_k_iou_does_not_fill_up_with_zeros():
    a, b = np.zeros((2, 1, 10, 10))
    a[0, 0, 0] = b[0, 9, 9] = 1
    np.testing.assert_array_equal(metrics.top_k_iou(a, b, top_k=0.5), [0.0])


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_maps_agree_fully_and_order_does_not_matter(measure):
    a, b = maps(4), maps(5)
    np.testing.assert_allclose(measure(a, a), 1)
    np.testing.assert_allclose(measure(a, b), measure(b, a))
    assert (np.abs(measure(a, b)) < 1).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_all_zero_maps_are_nan_and_touch_no_other_pair(measure):
    a, b = maps(6, n=4), maps(7, n=4)
    whole = measure(a, b)
    a[1], b[2], a[3], b[3] = 0, 0, 0, 0
    values = measure(a, b)
    assert np.isnan(values[1:]).all()
    assert values[0] == whole[0]


@pytest.mark.parametrize("measure", [metrics.pearson, metrics.spearman, metrics.top_k_iou])
def test_constant_maps_have_no_order(measure):
    assert np.isnan(measure(np.full((1, 8, 8), 0.1), maps(8, n=1, height=8, width=8))).all()


@pytest.mark.parametrize("measure", [metrics.cosine, metrics.pearson, metrics.spearman, metrics.top_k_iou])
def test_scale_does_not_matter(measure):
    a, b = maps(9), maps(10)
    np.testing.assert_allclose(measure(1e-9 * a, 7 * b), measure(a, b))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("shape", [(4, 9), (3, 9, 11), (4, 9, 11, 1), (0, 9, 11)])
def test_shapes_must_match(measure, shape):
    with pytest.raises(ValueError, match="one shape"):
        measure(np.ones(shape), maps(0))


@pytest.mark.parametrize("measure", MEASURES)
def test_maps_must_be_finite(measure):
    with pytest.raises(ValueError, match="finite"):
        measure(np.full((1, 8, 8), np.nan), np.ones((1, 8, 8)))


def test_options_are_checked():
    a = maps(0)
    with pytest.raises(ValueError, match="window=10 for maps of 9×11"):
        metrics.ssim(a, a, window=10)
    with pytest.raises(ValueError, match="data_range=0"):
        metrics.ssim(a, a, data_range=0)
    for top_k in (0, 1.1):
        with pytest.raises(ValueError, match="top_k"):
            metrics.top_k_iou(a, a, top_k=top_k)


def test_kl_divergence_agrees_with_scipy():
    """Of maps without zeros, and hardly any floor, it is the relative entropy of the normalised maps."""
    ours, theirs = maps(0) + 0.1, maps(1) + 0.1
    flat = [each.reshape(len(each), -1) for each in (theirs, ours)]
    np.testing.assert_allclose(metrics.kl_divergence(ours, theirs, floor=1e-9), stats.entropy(*flat, axis=1), rtol=1e-6)


def test_kl_divergence_is_zero_for_equal_maps_blind_to_scale_and_bounded():
    np.testing.assert_allclose(metrics.kl_divergence(maps(0), 3 * maps(0)), 0, atol=1e-12)
    left, right = np.zeros((2, 1, 2, 2))
    left[0, 0, 0], right[0, 1, 1] = 1, 1
    assert 0 < metrics.kl_divergence(left, right)[0] < np.log(4 / 0.01)


def test_kl_divergence_counts_what_is_negative_as_nothing():
    mixed = np.array([[[3.0, 1.0, -2.0]], [[-1.0, -2.0, 0.0]]])
    positive = np.array([[[3.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]])
    np.testing.assert_allclose(metrics.kl_divergence(mixed, positive), [0, np.nan], atol=1e-12)
    with pytest.raises(ValueError, match="`floor` must be a share"):
        metrics.kl_divergence(mixed, mixed, floor=0)
