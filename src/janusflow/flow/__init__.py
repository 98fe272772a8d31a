"""Rectified flow as plain functions: the path, guidance, and solvers for any velocity function."""

from janusflow.flow.guidance import Velocity, guide
from janusflow.flow.path import interpolate, logit_normal, standard_normal, target_velocity
from janusflow.flow.solver import METHODS, StepCallback, integrate, shifted_times, uniform_times

__all__ = [
    "METHODS",
    "StepCallback",
    "Velocity",
    "guide",
    "integrate",
    "interpolate",
    "logit_normal",
    "shifted_times",
    "standard_normal",
    "target_velocity",
    "uniform_times",
]
