"""A typed record becomes one self-contained HTML page."""

from kdkeras.report.page import render as render
from kdkeras.report.page import write as write
from kdkeras.report.pictures import picture as picture
from kdkeras.report.pictures import training_curves as training_curves
from kdkeras.report.record import Picture as Picture
from kdkeras.report.record import Report as Report
from kdkeras.report.record import Section as Section
from kdkeras.report.record import Table as Table
