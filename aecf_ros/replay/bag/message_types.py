"""Which message types carry what, and the definitions of those that a recording may lack them for."""

from __future__ import annotations

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
AUDIO_TYPES = (
    "audio_common_msgs/msg/AudioDataStamped",
    "audio_common_msgs/msg/AudioData",
    "audio_common_msgs/msg/AudioStamped",
    "foxglove_msgs/msg/RawAudio",
)
VECTOR_TYPES = ("aecf_msgs/msg/EmbeddingStamped",)
STREAM_TYPES = {"image": IMAGE_TYPES, "audio": AUDIO_TYPES, "vector": VECTOR_TYPES}
"""Kind of modality -> message types that carry it."""
UNDESCRIBED_TYPES = AUDIO_TYPES[:2]
"""Those whose messages do not say how to read them."""
INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
LABEL_TYPES = (
    "std_msgs/msg/String",
    *(f"std_msgs/msg/{sign}Int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "U")),
)
"""Names, or numbers of classes."""
_AUDIO_DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio",
    "audio_common_msgs/msg/AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format",
}
_OTHER_AUDIO_DEFINITIONS = {
    "audio_common_msgs/msg/AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\nuint8[] uint8_data",
    "audio_common_msgs/msg/AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
    "audio_common_msgs/msg/Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
    "audio_common_msgs/msg/AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio",
}
_OUR_DEFINITIONS = {"aecf_msgs/msg/EmbeddingStamped": "std_msgs/Header header\nfloat32[] values"}
_FOXGLOVE_DEFINITIONS = {
    "foxglove_msgs/msg/RawAudio": "builtin_interfaces/Time timestamp\nuint8[] data\nstring format\nuint32 sample_rate\nuint32 number_of_channels",
}


def types_without_definitions(other_dialect: bool) -> Typestore:
    """Types for recordings that carry no definitions of theirs, as sqlite3 ones of Humble do not.

    Args:
        other_dialect: the ``audio_common_msgs`` that has ``AudioStamped``; its types have the names of the one that apt ships.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in {
        **(_OTHER_AUDIO_DEFINITIONS if other_dialect else _AUDIO_DEFINITIONS),
        **_FOXGLOVE_DEFINITIONS,
        **_OUR_DEFINITIONS,
    }.items():
        store.register(get_types_from_msg(definition, name))
    return store
