"""Rectified flow as plain functions: the path, guidance, and solvers for any velocity function."""

from janusflow.flow.guidance import Velocity, check_guidance, combine, guide, guided_at
from janusflow.flow.path import interpolate, logit_normal, standard_normal, target_velocity
from janusflow.flow.solver import METHODS, Solver, StepCallback, drive, integrate, shifted_times, solve, uniform_times

__all__ = [
    "METHODS",
    "Solver",
    "StepCallback",
    "Velocity",
    "check_guidance",
    "combine",
    "drive",
    "guide",
    "guided_at",
    "integrate",
    "interpolate",
    "logit_normal",
    "shifted_times",
    "solve",
    "standard_normal",
    "target_velocity",
    "uniform_times",
]
