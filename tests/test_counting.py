import json

import keras
import numpy as np
import pytest

from kdkeras.counting import CountsMacs, LayerCost, count_macs, layer_macs
from kdkeras.evaluate import count

layers = keras.layers


def sequential(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


@pytest.mark.parametrize(
    ("builder", "millions"),
    [
        (keras.applications.MobileNetV2, 300.774272),
        (keras.applications.ResNet50, 3857.973248),
        (keras.applications.EfficientNetB0, 385.814752),
        pytest.param(keras.applications.VGG16, 15470.264320, marks=pytest.mark.slow),
    ],
)
def test_published_networks(builder, millions):
    assert count_macs(builder(weights=None)) / 1e6 == pytest.approx(millions, abs=1e-6)


def test_vgg16_without_allocating_its_weights_by_hand():
    """13 convolutions of 3×3 and three dense layers, written down as in the paper."""
    size, channels, total, stack = 224, 3, 0, []
    for filters, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            total += size * size * 9 * channels * filters
            stack.append(layers.Conv2D(filters, 3, padding="same"))
            channels = filters
        stack.append(layers.MaxPooling2D(2))
        size //= 2
    assert count_macs(sequential((224, 224, 3), *stack)) == total
    assert total + 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000 == 15_470_264_320


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((5,), layers.Dense(4), 5 * 4),
        ((7, 5), layers.Dense(4), 7 * 5 * 4),
        ((10, 3), layers.Conv1D(4, 3), 8 * 3 * 3 * 4),
        ((10, 9, 3), layers.Conv2D(4, (3, 2), strides=2), (4 * 4) * (3 * 2) * 3 * 4),
        ((10, 9, 6), layers.Conv2D(4, 3, groups=2, padding="same"), 90 * 9 * (6 // 2) * 4),
        ((10, 10, 3), layers.Conv2D(4, 3, dilation_rate=2), 36 * 9 * 3 * 4),
        ((6, 6, 6, 2), layers.Conv3D(4, 3), 64 * 27 * 2 * 4),
        ((10, 3), layers.DepthwiseConv1D(3, depth_multiplier=2), 8 * 3 * 3 * 2),
        ((10, 10, 3), layers.DepthwiseConv2D(3, depth_multiplier=2), 64 * 9 * 3 * 2),
        ((10, 3), layers.SeparableConv1D(5, 3), 8 * (3 * 3 + 3 * 5)),
        ((10, 10, 3), layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2), 16 * (9 * 6 + 6 * 5)),
        ((5, 3), layers.Conv1DTranspose(4, 3, strides=2), 5 * 3 * 3 * 4),
        ((5, 5, 3), layers.Conv2DTranspose(4, 3, strides=2, padding="same"), 25 * 9 * 3 * 4),
        ((3, 3, 3, 2), layers.Conv3DTranspose(4, 2), 27 * 8 * 2 * 4),
        ((7, 5), layers.EinsumDense("abc,cde->abde", (7, 2, 3)), 7 * 5 * 2 * 3),
        ((7, 2, 3), layers.EinsumDense("abcd,cde->abe", (7, 4)), 7 * 2 * 3 * 4),
        ((7, 5), layers.EinsumDense("...x,xy->...y", 4), 7 * 5 * 4),
        ((7, 5), layers.LSTM(4), 7 * 4 * (5 * 4 + 4 * 4)),
        ((7, 5), layers.GRU(4, return_sequences=True), 7 * 3 * (5 * 4 + 4 * 4)),
        ((7, 5), layers.SimpleRNN(4), 7 * (5 * 4 + 4 * 4)),
        ((7, 5), layers.Bidirectional(layers.LSTM(4)), 2 * 7 * 4 * (5 * 4 + 4 * 4)),
        (
            (7, 5),
            layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]),
            7 * (4 * (5 * 4 + 4 * 4) + 3 * (4 * 3 + 3 * 3)),
        ),
        ((7, 8, 8, 1), layers.TimeDistributed(layers.Conv2D(2, 3)), 7 * 36 * 9 * 2),
        ((5,), layers.SpectralNormalization(layers.Dense(4)), 5 * 4),
        ((8, 8, 3), layers.BatchNormalization(), 0),
        ((8, 8, 3), layers.LayerNormalization(), 0),
        ((8, 8, 4), layers.GroupNormalization(2), 0),
        ((8, 8, 3), layers.AveragePooling2D(2), 0),
        ((8, 8, 3), layers.PReLU(), 0),
        ((8, 8, 3), layers.Resizing(4, 4), 0),
        ((7,), layers.Embedding(10, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_single_layers_by_hand(shape, layer, expected):
    assert count_macs(sequential(shape, layer)) == expected


@pytest.mark.parametrize("layer", [layers.Dense(4), layers.Conv2D(4, 3, padding="same"), layers.DepthwiseConv2D(3)])
def test_counted_products_are_the_ones_that_a_plain_loop_does(layer):
    """With ones everywhere each output is its number of products, so their sum is the count (away from padding)."""
    model = sequential((5, 5, 3), layers.ZeroPadding2D(0), layer)
    layer.set_weights([np.ones_like(layer.get_weights()[0]), np.zeros_like(layer.get_weights()[1])])
    if getattr(layer, "padding", "valid") == "valid":
        assert count_macs(model) == float(keras.ops.sum(model(np.ones((1, 5, 5, 3), "float32"))))
    else:  # padding multiplies zeros, which count
        assert count_macs(model) > float(keras.ops.sum(model(np.ones((1, 5, 5, 3), "float32"))))


def attention_by_hand(queries, keys, heads, width, depth, out):
    projections = (queries * depth + 2 * keys * depth) * heads * width + queries * heads * width * out
    return projections + 2 * heads * queries * keys * width


def test_multi_head_attention_by_hand():
    query, value = keras.Input((6, 8)), keras.Input((9, 8))
    self_attention = keras.Model(query, layers.MultiHeadAttention(2, 3)(query, query))
    assert count_macs(self_attention) == attention_by_hand(6, 6, 2, 3, 8, 8)
    cross = layers.MultiHeadAttention(2, 3, output_shape=5)(query, value=value, use_causal_mask=False)
    assert count_macs(keras.Model([query, value], cross)) == attention_by_hand(6, 9, 2, 3, 8, 5)


def test_multi_head_attention_with_own_key_value_width_and_gate():
    query, key, value = keras.Input((6, 8)), keras.Input((9, 4)), keras.Input((9, 5))
    inputs = [query, key, value]
    output = layers.MultiHeadAttention(2, key_dim=3, value_dim=7)(query, value, key=key)
    plain = 6 * 8 * 6 + 9 * 4 * 6 + 9 * 5 * 14 + 6 * 14 * 8 + 2 * 6 * 9 * (3 + 7)
    assert count_macs(keras.Model(inputs, output)) == plain
    output = layers.MultiHeadAttention(2, key_dim=3, use_gate=True)(query, query)
    assert count_macs(keras.Model(query, output)) == attention_by_hand(6, 6, 2, 3, 8, 8) + 6 * 8 * 2 * 3


def test_attention_over_one_of_two_axes_looks_at_that_axis_alone():
    grid = keras.Input((4, 5, 8))
    output = layers.MultiHeadAttention(2, 3, attention_axes=2)(grid, grid)
    projections = 4 * 20 * 8 * 6
    assert count_macs(keras.Model(grid, output)) == projections + 20 * 5 * 2 * (3 + 3)


def test_grouped_query_attention_has_fewer_keys_and_values():
    x = keras.Input((6, 8))
    output = layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2)(x, x)
    projections = 6 * 8 * (4 * 3 + 2 * 3 + 2 * 3) + 6 * (4 * 3) * 8
    assert count_macs(keras.Model(x, output)) == projections + 4 * 6 * 6 * (3 + 3)


def test_plain_attention_and_matmul_by_hand():
    query, value = keras.Input((6, 8)), keras.Input((9, 8))
    assert count_macs(keras.Model([query, value], layers.Attention()([query, value]))) == 6 * 9 * (8 + 8)
    product = keras.ops.matmul(query, keras.ops.transpose(value, (0, 2, 1)))
    assert count_macs(keras.Model([query, value], product)) == 6 * 8 * 9


def test_reversible_embedding_counts_backwards_only():
    tokens = keras.Input((7,), dtype="int32")
    embedding = layers.ReversibleEmbedding(50, 4)
    assert count_macs(keras.Model(tokens, embedding(embedding(tokens), reverse=True))) == 7 * 4 * 50


def nested():
    image = keras.Input((8, 8, 3))
    backbone = keras.Model(image, layers.Conv2D(4, 3, name="conv")(image), name="backbone")
    head = keras.Sequential([layers.GlobalAveragePooling2D(name="pool"), layers.Dense(2, name="dense")], name="head")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, head(backbone(inputs)))


def test_nested_models_are_counted_by_path():
    assert layer_macs(nested()) == (
        LayerCost("backbone/conv", "Conv2D", (1, 6, 6, 4), 36 * 27 * 4, 27 * 4 + 4),
        LayerCost("head/pool", "GlobalAveragePooling2D", (1, 4), 0, 0),
        LayerCost("head/dense", "Dense", (1, 2), 8, 10),
    )


def test_a_shared_layer_counts_once_per_call_of_this_model():
    one, two = keras.Input((5,)), keras.Input((5,))
    shared = layers.Dense(3, name="shared")
    model = keras.Model([one, two], layers.Add(name="sum")([shared(one), shared(two)]))
    shared(keras.Input((5,)))  # a call that belongs to no model
    assert [cost.path for cost in layer_macs(model)] == ["shared", "shared", "sum"]
    assert count_macs(model) == 2 * 5 * 3


def test_a_nested_model_of_open_size_is_counted_at_the_size_of_its_call():
    backbone = sequential((None, None, 3), layers.Conv2D(4, 3))
    with pytest.raises(ValueError, match="fixed shape"):
        count_macs(backbone)
    inputs = keras.Input((8, 8, 3))
    assert count_macs(keras.Model(inputs, backbone(inputs))) == 36 * 27 * 4


def test_positions_folded_into_the_batch_axis_are_counted():
    inputs = keras.Input((7, 5))
    output = layers.Dense(4)(keras.ops.reshape(inputs, (-1, 5)))
    assert count_macs(keras.Model(inputs, output)) == 7 * 5 * 4


def test_counting_leaves_the_model_as_it_was():
    model = nested()
    model.compile("adam", "mse")
    before = [(layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]
    weights = model.get_weights()
    count_macs(model)
    assert [(layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers] == before
    for first, second in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_dict_inputs_and_several_outputs():
    inputs = {"b": keras.Input((5,), name="b"), "a": keras.Input((3,), name="a")}
    outputs = {"x": layers.Dense(2)(inputs["a"]), "y": layers.Dense(4)(inputs["b"])}
    assert count_macs(keras.Model(inputs, outputs)) == 3 * 2 + 5 * 4


class Tree(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(7)

    def call(self, inputs):
        return self.dense(inputs)

    def count_macs(self):
        return 7 * 4


class Opaque(keras.Model):
    def __init__(self):
        super().__init__(name="opaque")
        self.dense = layers.Dense(7)

    def call(self, inputs):
        return self.dense(inputs)


class Doubled(keras.Model):
    """A Functional model that does not run as it is wired."""

    def __init__(self):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(3)(inputs))

    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


def test_a_subclassed_model_is_counted_by_its_own_declaration_alone_or_nested():
    assert isinstance(Tree(), CountsMacs)
    tree = Tree()
    assert layer_macs(tree) == (LayerCost(tree.name, "Tree", None, 28, 0),)
    inputs = keras.Input((4,))
    assert count_macs(keras.Model(inputs, layers.Dense(2)(tree(inputs)))) == 28 + 7 * 2


def test_what_cannot_be_counted_exactly_is_refused_by_name():
    inputs = keras.Input((4,))
    for model in (Opaque(), keras.Model(inputs, Opaque()(inputs))):
        with pytest.raises(ValueError, match=r"cannot count 'opaque' of type Opaque.*`count_macs\(self\) -> int`"):
            count_macs(model)
    with pytest.raises(ValueError, match="of type Doubled"):
        count_macs(Doubled())
    with pytest.raises(ValueError, match="ConvLSTM1D: its cell"):
        count_macs(sequential((7, 5, 2), layers.ConvLSTM1D(3, 2)))
    with pytest.raises(ValueError, match="of type Einsum: the cost of this product"):
        count_macs(keras.Model(inputs, keras.ops.einsum("bi,bj->bij", inputs, inputs)))


@pytest.mark.parametrize(
    "model", [sequential((None, 5), layers.Dense(3)), sequential((None, 5), layers.LSTM(3))], ids=["dense", "lstm"]
)
def test_open_sizes_are_refused(model):
    with pytest.raises(ValueError, match=r"every size but the batch's.*None.*fixed shape"):
        count_macs(model)


def test_unbuilt_models_and_other_objects_are_refused():
    with pytest.raises(ValueError, match="has no input shape yet"):
        count_macs(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match=r"must be a keras.Model. Received: Dense"):
        count_macs(layers.Dense(3))


def test_a_count_adds_up_and_has_every_layer_once():
    shared = layers.Dense(5, name="shared")
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(shared(shared(inputs))), name="twice")
    found = count(model)
    assert (found.parameters, found.macs, found.exact) == (model.count_params(), 25 + 25 + 10, True)
    assert [(cost.path, cost.macs, cost.parameters) for cost in found.layers if cost.macs] == [
        ("shared", 25, 30),
        ("shared", 25, 0),
        ("head", 10, 12),
    ]
    assert sum(cost.parameters for cost in found.layers) == found.parameters
    assert json.loads(json.dumps(found.to_dict()))["macs"] == 60
    assert str(found).splitlines()[0] == "twice: 42 parameters, 60 MACs"
    assert str(found).splitlines()[-1].split() == ["head", "Dense", "2", "12", "10", "16.7%"]


def test_a_subclassed_model_is_counted_as_a_whole_and_the_count_says_so():
    model = Opaque()
    with pytest.raises(ValueError, match="Call it once on a batch, or give the class a method `count_macs`"):
        count(model)
    model(np.zeros((2, 4), "float32"))
    found = count(model)
    assert (found.exact, found.parameters, found.layers) == (False, 35, ())
    assert 28 <= found.macs <= 28 + 7  # the bias counts as operations too
    assert "half of the operations that TensorFlow's profiler finds" in str(found)
