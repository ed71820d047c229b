"""Weights that share few values, while a model trains."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kdkeras.compress._held_kernels import HeldKernels, Hold
from kdkeras.compress.kernels import Kernel, Scope

_SAMPLE = 65_536
"""Most weights of a kernel that k-means sees: in one dimension that is plenty."""


class ClusterWeights(HeldKernels):
    """Lets the weights of each kernel share a few values, which go on being trained.

    When its epoch begins, each kernel is divided into clusters. From then on all weights of a cluster move together, by
    the mean of their updates:

        w_i ← mean of w_j over all j in the cluster of i

    after each step of the optimizer, which is the projection onto kernels with shared weights. They stay shared under
    plain `fit` and under a `Distiller`, go with the model when it is saved, and are held after this `fit` too, until
    `strip` gives a model that is free of it; on JAX, in each `fit` that is given this callback. A file with few values
    compresses well; on the device it is as large as before.

    Args:
        model: The built model: for a distiller, its student.
        clusters: Values per kernel, at least 2; a kernel with fewer values stays as it is. Default 16.
        scope: `"kernels"`, those of dense, convolutional and recurrent layers; `"all"`, depthwise ones too; or a list
            of layer paths. Default `"kernels"`.
        init: `"kmeans"`, or `"linear"` for values evenly spaced between the smallest and the largest weight. Default
            `"kmeans"`.
        keep_zeros: Whether weights that are exactly zero, as pruning leaves them, stay zero, as one of the clusters.
            Default `True`.
        begin: Epoch at whose begin the weights are clustered, counted from 0. Default 0.
        seed: Seed of k-means. Default 0.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: There is nothing to cluster, or an option is out of range.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import compress
        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(8)])
        >>> model.compile("adam", "mse")
        >>> cluster = compress.ClusterWeights(model, clusters=4)
        >>> history = model.fit(np.random.rand(32, 10), np.random.rand(32, 8), verbose=0, callbacks=[cluster])
        >>> compress.sparsity(model).rows[0].unique
        4

    Reference:
        Han, Mao, Dally: Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
        Huffman Coding, 2016, arXiv:1510.00149, section 3. They add up the gradients of a cluster; here it is
        their mean, so that the learning rate need not shrink with the size of the kernel.
    """

    def __init__(
        self,
        model: keras.Model,
        clusters: int = 16,
        *,
        scope: Scope = "kernels",
        init: Literal["kmeans", "linear"] = "kmeans",
        keep_zeros: bool = True,
        begin: int = 0,
        seed: int = 0,
    ) -> None:
        if clusters < 2:
            raise ValueError(f"`clusters` must be at least 2. Received: {clusters!r}.")
        if init not in ("kmeans", "linear"):
            raise ValueError(f"`init` must be 'kmeans' or 'linear'. Received: {init!r}.")
        if begin < 0:
            raise ValueError(f"`begin` must be an epoch from 0 on. Received: {begin!r}.")
        self.clusters, self.init, self.keep_zeros, self.begin, self.seed = clusters, init, keep_zeros, begin, seed
        super().__init__(model, scope)

    def _hold(self, kernel: Kernel) -> Hold:
        return _Shared(kernel, self.clusters)

    def _update(self, epoch: float) -> None:
        if epoch < self.begin:
            return
        for hold in self._holds:
            weights = ops.convert_to_numpy(hold.kernel.variable)
            hold.share(self._indices(weights.ravel()), keeps_zero=self.keep_zeros and bool((weights == 0).any()))
            hold.apply()

    def _indices(self, weights: np.ndarray) -> np.ndarray:
        """Return the cluster of each weight; that of exact zeros is 0 where they are kept."""
        zeros = (weights == 0) & self.keep_zeros
        offset = int(zeros.any())
        # Few values already: they were clustered before, and the training goes on.
        values, indices = np.unique(weights[~zeros], return_inverse=True)
        if len(values) > self.clusters - offset:
            values = self._centroids(weights[~zeros], self.clusters - offset)
            indices = np.searchsorted((values[1:] + values[:-1]) / 2, weights[~zeros])
        result = np.zeros(len(weights), "int32")
        result[~zeros] = indices + offset
        return result

    def _centroids(self, weights: np.ndarray, count: int) -> np.ndarray:
        """Return values, sorted, that weights are near to."""
        if self.init == "linear":
            return np.linspace(weights.min(), weights.max(), count)
        from sklearn.cluster import KMeans

        generator = np.random.default_rng(self.seed)
        sample = generator.choice(weights, _SAMPLE, replace=False) if len(weights) > _SAMPLE else weights
        found = KMeans(count, n_init=1, random_state=self.seed).fit(sample.reshape(-1, 1).astype("float64"))
        return np.sort(found.cluster_centers_.ravel())


class _Shared(Hold):
    """Keeps the weights of each cluster equal."""

    def __init__(self, kernel: Kernel, clusters: int) -> None:
        super().__init__(kernel)
        self._clusters = clusters
        size = kernel.size
        self._active = keras.Variable(False, dtype="bool", trainable=False, name="active")
        self._index = keras.Variable(np.zeros(size), dtype="int32", trainable=False, name="index")
        self._first = keras.Variable(np.zeros(clusters), dtype="int32", trainable=False, name="first")
        self._count = keras.Variable(np.ones(clusters), dtype="float32", trainable=False, name="count")
        self._free = keras.Variable(np.ones(clusters), dtype="float32", trainable=False, name="free")

    def share(self, indices: np.ndarray, *, keeps_zero: bool) -> None:
        """Let weights share values from now on.

        Args:
            indices: Cluster of each weight, shape (weights,).
            keeps_zero: Whether the weights of cluster 0 stay zero.
        """
        first, count = np.zeros(self._clusters, "int32"), np.ones(self._clusters)
        present, places, numbers = np.unique(indices, return_index=True, return_counts=True)
        first[present], count[present] = places, numbers
        free = np.ones(self._clusters)
        free[0] = not keeps_zero
        pairs = ((self._index, indices), (self._first, first), (self._count, count), (self._free, free))
        for variable, value in pairs:
            variable.assign(ops.convert_to_tensor(value, variable.dtype))
        self._active.assign(True)

    def held(self, weights: Any) -> Any:
        flat = ops.reshape(weights, (-1,))
        index = ops.convert_to_tensor(self._index)
        # The mean, as one member plus the mean distance from it: long sums of nearly equal numbers lose digits.
        start = ops.take(flat, ops.convert_to_tensor(self._first))
        sums = ops.segment_sum(flat - ops.take(start, index), index, num_segments=self._clusters)
        values = (start + sums / ops.cast(self._count, flat.dtype)) * ops.cast(self._free, flat.dtype)
        shared = ops.reshape(ops.take(values, index), ops.shape(weights))
        return ops.where(ops.convert_to_tensor(self._active), shared, weights)
