"""Executors: one that survives service requests that raise, and one with a short path for frequent messages.

rclpy looks through every entity of a node, in Python, before each message. A lifecycle node has some thirty, which
takes as long between two frames as the fusion head. :class:`DirectExecutor` looks through them only after it served
something other than a message. Until then it waits for the same set again, and while messages arrive it waits for the
whole set only ten times a second. A timer that is set anew after each message would wake the wait set once for nothing
each time, because rcl triggers a guard condition; here the wait itself is limited instead. rclpy's EventsExecutor
(7.1.6) does not serve callbacks that ask for a message's sequence number, and Humble has no such executor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from time import monotonic_ns
from typing import Any

from rclpy.executors import ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as rcl
from rclpy.logging import get_logger
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.waitable import NumberOfEntities

from aecf_ros.core.errors import first_line
from aecf_ros.runtime.scheduling import Deadline

NANOSECONDS = 1_000_000_000
OTHERS_EVERY_NS = NANOSECONDS // 10
"""Longest wait of a timer, a service or an event while messages arrive: waiting for all thirty costs 0.36 ms of CPU."""
Take = Callable[[Any, Mapping[str, Any]], None]
"""Takes a message (its bytes if the subscription is raw) and its message info."""


NO_DEADLINE = Deadline(remaining_s=lambda: None, run=lambda: None)


class SteadyExecutor(SingleThreadedExecutor):
    """rclpy's executor, in which no service request can end the node.

    rclpy's own parameter services raise at a parameter type that does not exist. Such a request is logged and not
    answered. An exception in any other callback is raised by :meth:`spin_once`.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Serve one callback; wait for it at most ``timeout_sec`` (``None``: without limit)."""
        self._serve(timeout_sec)

    def _serve(self, timeout_sec: float | None) -> bool:
        """Serve one callback; return whether there was one."""
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            return False
        handler()
        try:
            handler.result()  # raises what the callback raised
        except Exception as error:
            if not isinstance(entity, Service):
                raise
            get_logger("executor").error(
                f"{entity.srv_name}: a request failed ({type(error).__name__}: {first_line(error)}); the node goes on"
            )
        return True


class DirectExecutor(SteadyExecutor):
    """Serves some subscriptions directly while nothing else is ready, and everything else as rclpy does, in one thread.

    Only :meth:`spin_once` differs. An exception in a callback is raised there. With an rclpy whose wait set has
    another interface it warns once and behaves as :class:`SteadyExecutor`.

    Args:
        direct: returns the subscriptions to serve directly, each with its callback.
        deadline: looked at before each wait, and run when it expires, before anything else.
    """

    def __init__(
        self,
        direct: Callable[[], Iterable[tuple[Subscription, Take]]],
        deadline: Deadline = NO_DEADLINE,
        **kwargs: Any,
    ) -> None:
        self._changed: GuardCondition | None = None  # the base class may wake itself before it is made
        super().__init__(**kwargs)
        self._changed = GuardCondition(callback=None, callback_group=None, context=self.context)
        self._direct, self._deadline = direct, deadline
        self._waiting: _WaitingFor | None = None
        self._short_way = True
        self._others_due_ns = 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Serve what is ready; wait at most ``timeout_sec`` (``None``: no limit) and at most until the deadline."""
        timeout_sec = self._until_due(timeout_sec)
        if self._short_way and self._waiting is None:
            direct = self._direct()
            try:
                self._waiting = _WaitingFor(self, self._changed, direct)
            except (AttributeError, TypeError) as error:
                self._short_way = False
                get_logger("executor").warning(
                    f"the wait set of this rclpy is not supported ({first_line(error)}); "
                    "messages are served by rclpy's own loop, which takes more CPU"
                )
        if self._waiting is None:
            super().spin_once(timeout_sec)
            return
        timeout_ns, left_ns = (
            -1 if timeout_sec is None else int(timeout_sec * NANOSECONDS),
            self._others_due_ns - monotonic_ns(),
        )
        everything = left_ns <= 0
        messages, others = self._waiting.wait(
            timeout_ns if everything or 0 <= timeout_ns < left_ns else left_ns, everything
        )
        if others:  # events come before messages: they tell who is there to answer
            self._forget()
            # Until nothing is left, because rclpy's own wait consumes the triggers of everything that is ready.
            while self._serve(0):
                pass
            return
        if everything and messages:
            self._others_due_ns = monotonic_ns() + OTHERS_EVERY_NS
        for subscription, take in messages:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is not None:
                take(*taken)

    def rearm(self) -> None:
        """Nothing to do: the deadline is looked at before each wait."""

    def create_task(self, *args: Any, **kwargs: Any) -> Any:
        """See rclpy."""
        task = super().create_task(*args, **kwargs)
        self.wake()
        return task

    def wake(self) -> None:
        """See rclpy: entities were added or removed, or a task is ready."""
        super().wake()
        if self._changed is not None:
            self._changed.trigger()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """See rclpy."""
        self._forget()
        if self._changed is not None:
            self._changed.destroy()
            self._changed = None
        return super().shutdown(timeout_sec)

    def _until_due(self, timeout_sec: float | None) -> float | None:
        """Run the deadline if it has expired; return the lesser of ``timeout_sec`` and the time until the next one."""
        remaining_s = self._deadline.remaining_s()
        if remaining_s is not None and remaining_s <= 0:
            self._deadline.run()
            remaining_s = self._deadline.remaining_s()
        limits_s = [limit_s for limit_s in (timeout_sec, remaining_s) if limit_s is not None]
        return min(limits_s, default=None)

    def _forget(self) -> None:
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None


class _WaitingFor:
    """A wait set of all entities of an executor's nodes, which are kept from being destroyed until :meth:`close`."""

    def __init__(
        self, executor: DirectExecutor, changed: GuardCondition, direct: Iterable[tuple[Subscription, Take]]
    ) -> None:
        nodes = executor.get_nodes()

        def entities(kind: str) -> list[Any]:
            return [entity for node in nodes for entity in getattr(node, kind) if executor.can_execute(entity)]

        subscriptions, self._timers, services, clients = (
            entities("subscriptions"),
            entities("timers"),
            entities("services"),
            entities("clients"),
        )
        self._waitables, self._guards = entities("waitables"), entities("guards")
        guards = [*self._guards, changed]
        count = NumberOfEntities(len(subscriptions), len(guards), len(self._timers), len(clients), len(services))
        with ExitStack() as held:
            for entity in (*subscriptions, *self._timers, *services, *clients, *guards):
                held.enter_context(entity.handle)
            for waitable in self._waitables:
                held.enter_context(waitable)
                count += waitable.get_num_entities()
            held.enter_context(executor.context.handle)
            self._set = rcl.WaitSet(
                count.num_subscriptions,
                count.num_guard_conditions,
                count.num_timers,
                count.num_clients,
                count.num_services,
                count.num_events,
                executor.context.handle,
            )
            self._held = held.pop_all()
        self._add = [
            (add, entity.handle)
            for add, entities in (
                (self._set.add_subscription, subscriptions),
                (self._set.add_guard_condition, guards),
                (self._set.add_timer, self._timers),
                (self._set.add_client, clients),
                (self._set.add_service, services),
            )
            for entity in entities
        ]
        self._direct = {
            subscription.handle.pointer: (subscription, take)
            for subscription, take in direct
            if subscription in subscriptions
        }
        self._add_urgent = [
            (self._set.add_guard_condition, changed.handle),
            *((self._set.add_subscription, s.handle) for s in subscriptions),
        ]

    def wait(self, timeout_ns: int, everything: bool) -> tuple[list[tuple[Subscription, Take]], bool]:
        """Wait at most ``timeout_ns`` (negative: without limit).

        Args:
            everything: wait for all entities; otherwise only for messages, ``/clock`` included, and for a wake-up.

        Returns:
            The subscriptions that can be taken directly, and whether anything else is ready.
        """
        entities = self._set
        entities.clear_entities()
        for add, handle in self._add if everything else self._add_urgent:
            add(handle)
        for waitable in self._waitables if everything else ():
            waitable.add_to_wait_set(entities)
        entities.wait(timeout_ns)
        ready, triggered = entities.get_ready_entities("subscription"), entities.get_ready_entities("guard_condition")
        messages = [self._direct[pointer] for pointer in ready if pointer in self._direct]
        urgent = len(messages) < len(ready) or bool(triggered)
        if not everything:
            return messages, urgent
        # The wait has consumed the triggers: events remember that they are ready, guard conditions are triggered again.
        events = [waitable for waitable in self._waitables if waitable.is_ready(entities)]
        for guard in self._guards:
            if guard.handle.pointer in triggered:
                guard.trigger()
        others = (
            urgent
            or bool(events)
            or any(timer.handle.is_timer_ready() for timer in self._timers)
            or any(entities.get_ready_entities(kind) for kind in ("service", "client"))
        )
        return messages, others

    def close(self) -> None:
        """Release the entities."""
        self._held.close()
