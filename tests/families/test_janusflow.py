"""The descriptor of the JanusFlow family."""

from __future__ import annotations

import torch

from janusflow import JanusFlowForConditionalGeneration
from janusflow.config import tiny
from janusflow.families import families


def test_every_parameter_belongs_to_one_part() -> None:
    with torch.device("meta"):
        network = JanusFlowForConditionalGeneration(tiny())
    family = families()["JanusFlow"]
    for name, _ in network.named_parameters():
        assert sum(name.startswith(prefixes) for prefixes in family.trainable.values()) == 1, name
    assert {family.part_of(name) for name, _ in network.named_parameters()} == set(family.trainable)
