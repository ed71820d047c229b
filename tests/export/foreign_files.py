"""TFLite files that this library would not write: with ops that LiteRT lacks."""

import tensorflow as tf


def inverse_file(path, *, flex):
    """Write a file that inverts 3×3 matrices, by an op of TensorFlow's (`flex`) or by a custom one."""

    @tf.function(input_signature=[tf.TensorSpec((1, 3, 3))])
    def invert(x):
        return {"y": tf.linalg.inv(x)}

    module = tf.Module()
    module.invert = invert
    converter = tf.lite.TFLiteConverter.from_concrete_functions([invert.get_concrete_function()], module)
    if flex:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    else:
        converter.allow_custom_ops = True
    path.write_bytes(converter.convert())
    return path
