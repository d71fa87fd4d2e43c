"""Recordings for the tests, cut from the shipped one."""
from __future__ import annotations

from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from .conftest import RECORDING


def first_seconds(seconds: float, path: Path) -> Path:
    """The first seconds of the shipped recording, as a rosbag2 directory ``path``."""
    with AnyReader([RECORDING]) as reader, Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        made = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore, offered_qos_profiles=c.ext.offered_qos_profiles)
                for c in reader.connections}
        for connection, log_ns, data in reader.messages():
            if log_ns - reader.start_time < seconds * 1e9:
                writer.write(made[connection.id], log_ns, data)
    return path
