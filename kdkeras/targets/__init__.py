"""What a teacher says of data, kept: its logits as a cache for the distiller, or as targets for plain `fit`.

`logits` asks any teacher: a Keras model, a scikit-learn estimator, an ONNX session, a PyTorch module, a function, a
TFLite file that `kdkeras.export.load` opened. `cache` puts its answers beside the inputs, for `kdkeras.Distiller.fit`.

`soft`, `hard`, `rank_encoded` and `cluster_encoded` turn outputs of shape `(n, K)` into float32 rows of K
probabilities. They differ in how much of the teacher they keep:

| Encoding | Keeps |
|---|---|
| `soft` | every probability, softened by a temperature if wished |
| `rank_encoded` | the order of the classes and the relative gaps between them, not how sure the teacher is |
| `cluster_encoded` | which of a few typical distributions the teacher's is nearest to |
| `hard` | the winning class alone |

A student with a softmax output learns from them with `loss="categorical_crossentropy"`, one that ends in logits with
`keras.losses.CategoricalCrossentropy(from_logits=True)`. For the loss of Hinton's distillation, with T² and with the
labels beside it, use `kdkeras.Distiller` instead.
"""

from kdkeras.targets.answers import logits as logits
from kdkeras.targets.caching import cache as cache
from kdkeras.targets.encodings import Clusters as Clusters
from kdkeras.targets.encodings import cluster as cluster
from kdkeras.targets.encodings import cluster_encoded as cluster_encoded
from kdkeras.targets.encodings import hard as hard
from kdkeras.targets.encodings import rank_encoded as rank_encoded
from kdkeras.targets.encodings import soft as soft
from kdkeras.targets.from_teacher import from_teacher as from_teacher
