"""Callbacks: exact resumption, schedules of settings, checkpoints of the student alone."""

from kdkeras.callbacks.anneal import Anneal as Anneal
from kdkeras.callbacks.resume import Resume as Resume
from kdkeras.callbacks.schedule import cosine as cosine
from kdkeras.callbacks.schedule import linear as linear
from kdkeras.callbacks.schedule import stages as stages
from kdkeras.callbacks.schedule import warm_up as warm_up
from kdkeras.callbacks.student_checkpoint import StudentCheckpoint as StudentCheckpoint
