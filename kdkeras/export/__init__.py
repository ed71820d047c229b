"""Export a Keras model to TFLite, ONNX or SavedModel, checked against Keras before anything is left behind."""

from kdkeras.export._checked import ModelExport as ModelExport
from kdkeras.export.benchmark import TFLiteBenchmark as TFLiteBenchmark
from kdkeras.export.benchmark import ThreadCount as ThreadCount
from kdkeras.export.benchmark import benchmark as benchmark
from kdkeras.export.card import Card as Card
from kdkeras.export.conversion import ConversionError as ConversionError
from kdkeras.export.evaluation import evaluate as evaluate
from kdkeras.export.onnx import onnx as onnx
from kdkeras.export.parity import ExportParityError as ExportParityError
from kdkeras.export.runtime import TFLiteModel as TFLiteModel
from kdkeras.export.runtime import load as load
from kdkeras.export.saved_model import saved_model as saved_model
from kdkeras.export.tflite import TFLiteExport as TFLiteExport
from kdkeras.export.tflite import tflite as tflite
