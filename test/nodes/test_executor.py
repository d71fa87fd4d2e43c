"""The executor of the fusion node: messages by the short way, everything else as rclpy serves it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not importable: source ROS 2 or run `make test`")

from rcl_interfaces.msg import Parameter, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.clock import Clock, ClockType  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.publisher import Publisher  # noqa: E402
from rclpy.subscription import Subscription  # noqa: E402
from rclpy.task import Future  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from aecf_ros.nodes.ros.executor import DirectExecutor, Take  # noqa: E402
from aecf_ros.runtime.scheduling import Deadline  # noqa: E402

WAIT_S = 60.0


@dataclass
class Due:
    """Something due a while after it was last done; never before it is set."""

    after_s: float | None = None
    done: list[float] = field(default_factory=list)

    def remaining_s(self) -> float | None:
        if self.after_s is None:
            return None
        return 0.0 if not self.done else max(0.0, self.done[-1] + self.after_s - time.monotonic())

    def do(self) -> None:
        self.done.append(time.monotonic())


@dataclass
class Served:
    """A node under a DirectExecutor that hears itself."""

    node: Node
    executor: DirectExecutor
    direct: list[tuple[Subscription, Take]]
    due: Due
    heard: list[Any] = field(default_factory=list)
    by_the_short_way: int = 0

    def until(self, condition: Callable[[], object], between: Callable[[], None] = lambda: None) -> None:
        give_up = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < give_up, f"waited {WAIT_S:.0f} s in vain"
            between()
            self.executor.spin_once(timeout_sec=0.02)

    def listen(self, topic: str, take: Take) -> Publisher:
        """Subscribe; rclpy's own way, which serves what is there when something else is too, does the same."""

        def by_the_short_way(data: bytes, info: Any) -> None:
            self.by_the_short_way += 1
            take(data, info)

        def by_rclpy(data: bytes, info: Any) -> None:
            take(data, info)

        self.direct.append((self.node.create_subscription(String, topic, by_rclpy, 10, raw=True), by_the_short_way))
        publisher = self.node.create_publisher(String, topic, 10)
        self.until(lambda: publisher.get_subscription_count() and self.node.count_publishers(topic))
        return publisher


@pytest.fixture
def served(domain: int) -> Iterator[Served]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node("served", context=context)
    direct: list[tuple[Subscription, Take]] = []
    due = Due()
    executor = DirectExecutor(lambda: direct, Deadline(due.remaining_s, due.do), context=context)
    executor.add_node(node)
    yield Served(node, executor, direct, due)
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


def test_messages_come_in_order_with_what_the_middleware_says(served: Served) -> None:
    publisher = served.listen("a", lambda data, info: served.heard.append((data, info)))
    sent = itertools.count()

    def publish() -> None:
        publisher.publish(String(data=f"{next(sent):04}"))

    served.until(lambda: served.by_the_short_way > 5, publish)
    texts, numbers = zip(
        *[(data[8:12].decode(), info["publication_sequence_number"]) for data, info in served.heard], strict=True
    )
    assert list(texts) == sorted(texts)
    assert [number - numbers[0] for number in numbers] == [int(text) - int(texts[0]) for text in texts]


def test_a_timer_a_service_and_another_subscription_are_served_beside_messages(served: Served) -> None:
    ticks, others = [], []
    publisher = served.listen("a", lambda data, info: served.heard.append(data))
    served.node.create_timer(0.01, lambda: ticks.append(1), clock=Clock(clock_type=ClockType.STEADY_TIME))
    served.node.create_subscription(String, "b", others.append, 10)
    other = served.node.create_publisher(String, "b", 10)
    served.node.create_service(Trigger, "ask", lambda request, response: response)
    client = served.node.create_client(Trigger, "ask")
    served.until(lambda: client.service_is_ready() and other.get_subscription_count())
    answer = client.call_async(Trigger.Request())

    def publish() -> None:
        publisher.publish(String(data="x"))
        other.publish(String(data="y"))

    served.until(lambda: answer.done() and len(ticks) > 3 and len(others) > 3 and len(served.heard) > 3, publish)


def test_while_messages_come_others_messages_and_tasks_do_not_wait_for_the_next_look(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = served.listen("a", lambda data, info: served.heard.append(data))
    others: list[String] = []
    served.node.create_subscription(String, "b", others.append, 10)
    other = served.node.create_publisher(String, "b", 10)
    served.until(other.get_subscription_count)
    served.until(lambda: others, lambda: other.publish(String(data="y")))  # both ends know of each other
    monkeypatch.setattr("aecf_ros.nodes.ros.executor.OTHERS_EVERY_NS", 10**15)
    at_first = served.by_the_short_way
    served.until(lambda: served.by_the_short_way > at_first, lambda: publisher.publish(String(data="x")))
    others.clear()
    served.until(lambda: others, lambda: other.publish(String(data="y")))
    done: list[int] = []
    served.executor.create_task(lambda: done.append(1))
    served.until(lambda: done)


def test_what_is_due_is_done_when_nothing_comes_and_when_messages_never_end(served: Served) -> None:
    served.due.after_s = 0.02
    served.executor.spin_once(timeout_sec=0)
    assert len(served.due.done) == 1
    served.executor.spin_once(timeout_sec=WAIT_S)  # returns when it is due again, which is then done
    served.executor.spin_once(timeout_sec=0)
    first, second = served.due.done
    assert 0.02 <= second - first < WAIT_S
    publisher = served.listen("a", lambda data, info: served.heard.append(data))
    publisher.publish(String(data="x"))
    at_first = len(served.due.done)
    served.until(lambda: len(served.due.done) > at_first + 3, lambda: publisher.publish(String(data="x")))
    assert served.heard


def test_a_coroutine_that_waits_does_not_hold_up_messages_and_goes_on(served: Served) -> None:
    publisher = served.listen("a", lambda data, info: served.heard.append(data))
    loaded: Future = Future(executor=served.executor)
    loaded.add_done_callback(lambda _: None)
    after: list[str] = []

    async def wait() -> None:
        after.append(await loaded)

    served.executor.create_task(wait)
    served.until(lambda: len(served.heard) > 3, lambda: publisher.publish(String(data="x")))
    assert not after
    loaded.set_result("there")
    served.until(lambda: after == ["there"])


def test_subscriptions_may_go_and_come(served: Served) -> None:
    first = served.listen("a", lambda data, info: served.heard.append("a"))
    served.until(lambda: served.heard, lambda: first.publish(String(data="x")))
    served.node.destroy_subscription(served.direct.pop()[0])
    second = served.listen("b", lambda data, info: served.heard.append("b"))
    served.until(lambda: "b" in served.heard, lambda: second.publish(String(data="x")))


def test_an_exception_ends_the_spinning(served: Served) -> None:
    def fail(data: bytes, info: Any) -> None:
        raise RuntimeError("broken")

    publisher = served.listen("a", fail)
    with pytest.raises(RuntimeError, match="broken"):
        served.until(lambda: False, lambda: publisher.publish(String(data="x")))


def test_a_request_that_makes_a_service_raise_is_named_and_the_next_one_is_answered(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    """rclpy's own parameter service raises at a type that does not exist."""
    client = served.node.create_client(SetParameters, "served/set_parameters")
    served.until(client.service_is_ready)
    client.call_async(SetParameters.Request(parameters=[Parameter(name="x", value=ParameterValue(type=99))]))
    said: list[str] = []

    def listen() -> None:
        said.append(capfd.readouterr().err)

    served.until(lambda: "99 is not a valid Parameter.Type" in "".join(said), listen)
    assert "served/set_parameters: a request failed (ValueError: " in "".join(said)
    answers: list[Any] = []

    def ask() -> None:
        client.call_async(SetParameters.Request(parameters=[])).add_done_callback(answers.append)

    served.until(lambda: answers, ask)


def test_with_an_rclpy_whose_wait_sets_differ_messages_take_its_own_way(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*of: Any) -> None:
        raise TypeError("incompatible constructor arguments")

    monkeypatch.setattr("aecf_ros.nodes.ros.executor._WaitingFor", refuse)
    publisher = served.listen("a", lambda data, info: served.heard.append(data))
    served.until(lambda: len(served.heard) > 3, lambda: publisher.publish(String(data="x")))
    assert served.by_the_short_way == 0
    assert (
        capfd.readouterr().err.count("wait set of this rclpy is not supported (incompatible constructor arguments)")
        == 1
    )
