"""The interactive page of `kdkeras explore`: teacher and student side by side, sample by sample, with feedback.

`Workbench` answers all questions of the page in plain Python; `serve` lays it out with Gradio, the extra `app`.
"""

from kdkeras.app.samples import Samples as Samples
from kdkeras.app.samples import load_samples as load_samples
from kdkeras.app.serve import listen as listen
from kdkeras.app.serve import serve as serve
from kdkeras.app.workbench import Workbench as Workbench
