"""Faults of what a sensor shows: messages that can be used, and show less. The kinds of sensors define them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from aecf_ros.modalities.faults import Option
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.faults.base import Delivery, Effect


class Content(Effect):
    """Changes the content of messages. Messages whose content cannot be read go on as they are."""

    def __init__(self, fault: str, options: Mapping[str, float], stream_kind: str, end_s: float) -> None:
        super().__init__(fault, options, stream_kind, end_s)
        self._modality = MODALITIES[stream_kind]
        self._content = self._modality.content_faults[fault](options)

    @classmethod
    def options_on(cls, fault: str, stream_kind: str) -> Mapping[str, Option] | None:
        content = MODALITIES[stream_kind].content_faults.get(fault)
        return None if content is None else content.OPTIONS

    def pass_on(self, delivery: Delivery, rng: np.random.Generator | None) -> list[Delivery]:
        if rng is None and self._content.learns():
            self._modality.edit(delivery.message, delivery.info, self._learn)
        return super().pass_on(delivery, rng)

    def _learn(self, content: np.ndarray) -> np.ndarray:
        self._content.learn(content)
        return content

    def strike(self, delivery: Delivery, rng: np.random.Generator) -> list[Delivery]:
        message = self._modality.edit(
            delivery.message, delivery.info, lambda content: self._content.change(content, rng)
        )
        return [replace(delivery, message=message)]
