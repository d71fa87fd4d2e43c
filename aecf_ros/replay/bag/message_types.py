"""Which message types carry what, and the definitions of those that a recording may lack them for."""

from __future__ import annotations

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from aecf_ros.modalities.registry import MODALITIES

LABEL_TYPES = (
    "std_msgs/msg/String",
    *(f"std_msgs/msg/{sign}Int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "U")),
)
"""Names, or numbers of classes."""


def stream_types(kind: str) -> tuple[str, ...]:
    """The message types that carry a kind of modality."""
    return tuple(MODALITIES[kind].message_types.values())


def kind_of_type(message_type: str) -> str | None:
    """The kind of modality that a message type carries; ``None`` for none."""
    return next((kind for kind in MODALITIES if message_type in stream_types(kind)), None)


def needs_info(message_type: str) -> bool:
    """Whether messages of a type do not say how to read them."""
    return any(message_type in kind.described_types for kind in MODALITIES.values())


def types_without_definitions(dialect: int) -> Typestore:
    """Types for recordings that carry no definitions, as sqlite3 ones of Humble do not.

    Args:
        dialect: which of a kind's definitions are taken, where it has several; 0 for the usual ones.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    for kind in MODALITIES.values():
        for name, definition in kind.definitions[min(dialect, len(kind.definitions) - 1)].items():
            store.register(get_types_from_msg(definition, name))
    return store
