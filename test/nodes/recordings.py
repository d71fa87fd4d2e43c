"""Recordings for the tests, cut from the shipped one."""

from __future__ import annotations

from pathlib import Path

import cv2
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from .conftest import RECORDING

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
STORE = get_typestore(Stores.ROS2_HUMBLE)


def first_seconds(seconds: float, path: Path, raw: bool = False) -> Path:
    """The first seconds of the shipped recording, as a rosbag2 directory ``path``; with ``raw`` its JPEG images as
    raw ones.
    """
    with AnyReader([RECORDING]) as reader, Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        decoded = {c.id for c in reader.connections if raw and c.msgtype == COMPRESSED}
        made = {
            c.id: writer.add_connection(
                c.topic,
                RAW if c.id in decoded else c.msgtype,
                typestore=STORE if c.id in decoded else reader.typestore,
                offered_qos_profiles=c.ext.offered_qos_profiles,
            )
            for c in reader.connections
        }
        for connection, log_ns, data in reader.messages():
            if log_ns - reader.start_time < seconds * 1e9:
                writer.write(made[connection.id], log_ns, _decoded(data) if connection.id in decoded else data)
    return path


def _decoded(data: bytes) -> bytes:
    """A serialized compressed image as a serialized raw one."""
    message = STORE.deserialize_cdr(data, COMPRESSED)
    image = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
    return STORE.serialize_cdr(
        STORE.types[RAW](
            header=message.header,
            height=image.shape[0],
            width=image.shape[1],
            encoding="bgr8",
            is_bigendian=0,
            step=image.shape[1] * 3,
            data=image.reshape(-1),
        ),
        RAW,
    )
