"""What a model says in one forward pass: predictions, logits and the outputs of chosen layers.

Both the losses and the explanations need more of a model than its predictions: the logits behind a softmax, the
feature map of an inner layer. `Extractor` reads them all from a single call of the model itself, whether it is
Functional, Sequential, nested or subclassed, and leaves the model as it was.
"""

from kdkeras.signals.attributions import Attribution as Attribution
from kdkeras.signals.attributions import Explain as Explain
from kdkeras.signals.extractor import Extractor as Extractor
from kdkeras.signals.extractor import called_layers as called_layers
from kdkeras.signals.prediction import Reader as Reader
from kdkeras.signals.prediction import predict as predict
from kdkeras.signals.prediction import predict_logits as predict_logits
from kdkeras.signals.prediction import predict_with_head as predict_with_head
from kdkeras.signals.prediction import refuse_probabilities as refuse_probabilities
from kdkeras.signals.records import Batch as Batch
from kdkeras.signals.records import Cached as Cached
from kdkeras.signals.records import Indexed as Indexed
from kdkeras.signals.records import Paired as Paired
from kdkeras.signals.records import Signals as Signals
from kdkeras.signals.records import SignalSpec as SignalSpec
