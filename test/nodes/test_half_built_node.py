"""A node whose start fails is destroyed without a second error: rclpy of Kilted destroys it where Jazzy's does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="rclpy is not importable: source ROS 2 or run `make test`")

import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402

from aecf_ros.nodes.fusion import node as node_module  # noqa: E402
from aecf_ros.nodes.fusion.parameters import ParameterError  # noqa: E402


@pytest.fixture
def context(domain: int) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    context.try_shutdown()


@pytest.mark.parametrize("step", ["declare_node_parameters", "Inputs", "ClassificationPublisher"])
def test_a_node_that_could_not_be_made_can_be_destroyed(
    step: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise ParameterError("device: expected cpu or cuda")

    monkeypatch.setattr(node_module, step, refuse)
    node = node_module.FusionNode.__new__(node_module.FusionNode)
    with pytest.raises(ParameterError):
        node.__init__(context=context)
    node.destroy_node()
