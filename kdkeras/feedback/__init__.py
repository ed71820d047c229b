"""What people say of explanations: stored durably, exported, and used in training.

`FeedbackStore` keeps marks in one SQLite file; `explanation_weights` turns them into a weight for each training sample,
which `losses.ExplanationMatching` takes.
"""

from kdkeras.feedback.mark import VERDICTS as VERDICTS
from kdkeras.feedback.mark import Mark as Mark
from kdkeras.feedback.samples import explanation_weights as explanation_weights
from kdkeras.feedback.samples import sample_id as sample_id
from kdkeras.feedback.store import FeedbackStore as FeedbackStore
