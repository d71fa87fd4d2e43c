"""Subscriptions of the fusion node: one for each modality of a bundle, whatever message carries it."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import (  # from here, because its own module is another in Humble
    Subscription,
    SubscriptionEventCallbacks,
)

from aecf_ros.core.bundle import ManifestEntry
from aecf_ros.modalities.base import Modality, Raw
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.nodes.fusion.parameters import ParameterError, StreamParameters, Value
from aecf_ros.nodes.ros.executor import Take
from aecf_ros.nodes.ros.qos import OVERRIDABLE

LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)

UNNAMED = "_NODE_NAME_UNKNOWN_"

Read = Callable[[Any, int], Raw]
"""From a message, serialized or not, and its arrival in node time to a record; may raise UnknownFormatError or
UnreadableError.
"""
OnMessage = Callable[[str, Read, Any], None]
OnPublishers = Callable[[str, int], None]


class UnreadableError(ValueError):
    """A serialized message that is not what its type says."""


@dataclass(slots=True)
class _Stream:
    """One modality's subscription. ``types`` are those it may have, the first one when nothing is known."""

    topic: str
    types: Mapping[str, str]
    read: Callable[[str], Read]
    qos: QoSProfile
    chosen: str
    automatic: bool
    serialized: bool
    heard: bool = False
    subscription: Subscription | None = None
    take: Take | None = None
    publishers: int | None = None
    last_number: int | None = None


class Inputs:
    """The subscriptions of all modalities, made and destroyed together. Call from the executor's thread.

    Args:
        on_message: told the modality, how to read the message, and the message, which is not even deserialized yet
            where it is an image.
        on_publishers: told the modality and how many publishers it has, where the middleware says so.

    Attributes:
        missed: messages by modality that its publisher sent and that never came: a newer one took their place in the
            queue while the loop
            was busy, or the transport lost them.
    """

    def __init__(self, node: Node, on_message: OnMessage, on_publishers: OnPublishers) -> None:
        self._node = node
        self._on_message = on_message
        self._on_publishers = on_publishers
        self.missed: Counter[str] = Counter()
        self._infos: dict[str, Any] = {}
        self._info_subscriptions: list[Subscription] = []
        self._streams: dict[str, _Stream] = {}

    def open(self, modality: ManifestEntry, parameters: StreamParameters) -> None:
        """Subscribe to what carries one modality.

        Raises:
            ParameterError: the message type that was named is not installed.
        """
        name, kind = modality.name, MODALITIES[modality.kind]
        if (info := kind.default_info(parameters.options)) is not None:
            self._infos[name] = info
        if kind.info_type and _is_readable(kind, kind.info_type):
            topic = f"{name}_info"
            self._info_subscriptions.append(
                self._subscribe(
                    load_type(kind.info_type),
                    topic,
                    partial(self._infos.__setitem__, name),
                    LATCHED_QOS,
                    SubscriptionEventCallbacks(incompatible_qos=partial(self._complain, topic, LATCHED_QOS)),
                )
            )
        self._streams[name] = self._make(name, kind, parameters.options)
        self._listen(name)

    def direct(self) -> list[tuple[Subscription, Take]]:
        """The subscriptions now, and what to do with a message of each: for :class:`DirectExecutor`."""
        return [
            (stream.subscription, stream.take)
            for stream in self._streams.values()
            if stream.subscription is not None and stream.take is not None
        ]

    def look_again(self) -> None:
        """Where the type is to be found out and nothing was heard yet: follow what is published on the topic now."""
        for name, stream in self._streams.items():
            if (
                stream.automatic
                and not stream.heard
                and (message_class := self._published(stream)) not in (None, stream.chosen)
            ):
                self._node.get_logger().info(
                    f"{self._node.resolve_topic_name(stream.topic)} is published as {stream.types[message_class]}"
                )
                stream.chosen = message_class
                self._listen(name)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in [*self._info_subscriptions, *(s.subscription for s in self._streams.values())]:
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._info_subscriptions.clear()
        self._streams.clear()
        self._infos.clear()

    def _make(self, name: str, kind: Modality, options: Mapping[str, Value]) -> _Stream:
        types = kind.message_types
        installed = {key: type_name for key, type_name in types.items() if _is_readable(kind, type_name)}
        wanted = str(options[kind.type_parameter]) if kind.type_parameter else "auto"
        if not installed or wanted not in ("auto", *installed):
            lacking = ", ".join(types.values()) if wanted == "auto" else types[wanted]
            source = (
                f"parameter {name}.{kind.type_parameter} is '{wanted}', but"
                if kind.type_parameter
                else f"'{name}' takes"
            )
            raise ParameterError(
                f"{source} {lacking}{', which' if not kind.type_parameter else ''} is not installed; "
                "install its package and source its workspace"
                + (f", or use one of {', '.join(installed)}" if installed else "")
            )

        def read(chosen: str) -> Read:
            if chosen in kind.serialized:
                return partial(_read_serialized, name=types[chosen], read=kind.serialized[chosen])
            return lambda message, received_ns: kind.read(message, self._infos.get(name), received_ns)

        stream = _Stream(
            name + kind.topic_suffix,
            installed,
            read,
            QoSProfile(
                depth=kind.queue_depth,
                history=HistoryPolicy.KEEP_LAST,
                reliability=ReliabilityPolicy.BEST_EFFORT,  # matches every publisher
            ),
            next(iter(installed)) if wanted == "auto" else wanted,
            automatic=wanted == "auto" and len(types) > 1,
            serialized=bool(kind.serialized),
        )
        if stream.automatic:
            stream.chosen = self._published(stream) or stream.chosen
        return stream

    def _published(self, stream: _Stream) -> str | None:
        """The published type of the stream's topic, ``None`` if it has no publisher."""
        published = {
            info.topic_type
            for info in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(stream.topic))
        }
        return next((key for key, name in stream.types.items() if name in published), None)

    def _listen(self, name: str) -> None:
        stream = self._streams[name]
        if stream.subscription is not None:
            self._node.destroy_subscription(stream.subscription)
        read = stream.read(stream.chosen)

        def on_message(message: Any) -> None:
            stream.heard = True
            self._on_message(name, read, message)

        def on_numbered_message(message: Any, info: Mapping[str, Any]) -> None:
            self._count(name, stream, info.get("publication_sequence_number"))
            on_message(message)

        def on_publishers(info: Any) -> None:
            stream.publishers, stream.last_number = info.current_count, None
            self._on_publishers(name, info.current_count)

        events: dict[str, Callable[[Any], None]] = {
            "incompatible_qos": partial(self._complain, stream.topic, stream.qos)
        }
        # Humble's middleware has no matched event; silence then says that a publisher is gone.
        if "matched" in inspect.signature(SubscriptionEventCallbacks).parameters:
            events["matched"] = on_publishers
        # A callback with two arguments is given the message's number, where rclpy knows of that.
        callback = on_numbered_message if hasattr(Subscription, "CallbackType") else on_message
        stream.last_number, stream.take = None, on_numbered_message
        stream.subscription = self._subscribe(
            load_type(stream.types[stream.chosen]),
            stream.topic,
            callback,
            stream.qos,
            SubscriptionEventCallbacks(**events),
            stream.serialized,
        )

    def _count(self, name: str, stream: _Stream, number: int | None) -> None:
        """Note the gap before a message; several publishers number on their own, and then nothing can be said."""
        if number and stream.last_number and stream.publishers in (None, 1) and number > stream.last_number:
            self.missed[name] += number - stream.last_number - 1
        stream.last_number = number

    def _subscribe(
        self,
        message_type: Any,
        topic: str,
        callback: Callable,
        qos: QoSProfile,
        events: SubscriptionEventCallbacks,
        serialized: bool = False,
    ) -> Subscription:
        return self._node.create_subscription(
            message_type,
            topic,
            callback,
            qos,
            event_callbacks=events,
            qos_overriding_options=OVERRIDABLE,
            raw=serialized,
        )

    def _complain(self, topic: str, qos: QoSProfile, info: Any) -> None:
        resolved = self._node.resolve_topic_name(topic)
        ours = f"reliability {qos.reliability.name}, durability {qos.durability.name}"
        # The profile is known before the name of the node that it belongs to.
        theirs = (
            "; ".join(
                f"{e.node_name.replace(UNNAMED, 'a node')}: reliability {e.qos_profile.reliability.name}, "
                f"durability {e.qos_profile.durability.name}"
                for e in self._node.get_publishers_info_by_topic(resolved)
            )
            or "unknown"
        )
        self._node.get_logger().error(
            f"{resolved}: the publisher's QoS does not fit and nothing will arrive; we ask for {ours}, it offers"
            f" {theirs}; set qos_overrides.{resolved}.subscription.*"
        )


def _read_serialized(data: bytes, received_ns: int, name: str, read: Callable[[bytes, int], Raw]) -> Raw:
    """The record of a serialized message; its payload is a view of ``data``.

    Raises:
        UnreadableError: ``data`` is no such message.
    """
    try:
        return read(data, received_ns)
    except Exception as error:  # whatever the bytes make the reading code do
        raise UnreadableError(
            f"{len(data)} bytes are no {name} ({type(error).__name__}); check that the publisher's message package is"
            " the same"
        ) from None


def _is_readable(kind: Modality, name: str) -> bool:
    """Whether a message type is installed, and from the package whose form is read here."""
    message_class = load_type(name)
    field = kind.type_fields.get(name)
    return message_class is not None and (field is None or field in message_class.get_fields_and_field_types())


def load_type(name: str) -> Any | None:
    """The message class of ``package/msg/Name``, ``None`` where it is not installed."""
    package, _, short = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), short, None)
    except ModuleNotFoundError:
        return None
