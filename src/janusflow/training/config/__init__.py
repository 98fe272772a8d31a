"""The settings of training: dataclasses, read from a YAML recipe with `key=value` overrides and checked."""

from janusflow.training.config.data import DataConfig
from janusflow.training.config.model import LoraConfig, ModelConfig
from janusflow.training.config.optimizer import OptimizerConfig
from janusflow.training.config.read import load_config, read_config, recipe_values, typed_config
from janusflow.training.config.run import SaveConfig, TrainConfig, WatchConfig
from janusflow.training.losses import LossConfig

__all__ = [
    "DataConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SaveConfig",
    "TrainConfig",
    "WatchConfig",
    "load_config",
    "read_config",
    "recipe_values",
    "typed_config",
]
