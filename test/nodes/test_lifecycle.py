"""Lifecycle, services and live parameters of the fusion node, over DDS."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from aecf_msgs.msg import FusedPrediction
from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import StreamState, StreamStatus
from aecf_ros.nodes.fusion.inputs import LATCHED_QOS
from aecf_ros.nodes.fusion.parameters import NODE, STREAM, options_of
from aecf_ros.nodes.tools.parameters_page import page
from aecf_ros.runtime.diagnostics import diagnose_stream

from .conftest import MODEL, PATIENT, ROOT, UNPACED, FusionProcess, Peer, private_environment
from .processes import NodeProcess
from .test_fusion_node import Robot

UNKNOWN_TRANSITION = 255
UNCONFIGURED, INACTIVE, ACTIVE = (
    State.PRIMARY_STATE_UNCONFIGURED,
    State.PRIMARY_STATE_INACTIVE,
    State.PRIMARY_STATE_ACTIVE,
)


@pytest.fixture
def start_node(start_node: Callable[..., FusionProcess]) -> Callable[..., FusionProcess]:
    return lambda *parameters: start_node(*UNPACED, *parameters)


@pytest.fixture
def robot(peer: Peer) -> Robot:
    return Robot(peer, Image)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """A robot with an active node, for the tests that only look at it."""
    environment = private_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        peer = Peer(int(environment["ROS_DOMAIN_ID"]))
    node = NodeProcess(
        "aecf_ros.nodes.fusion.node", tmp_path_factory.mktemp("running") / "log", environment=environment
    )
    yield Robot(peer, Image)
    node.end()
    peer.close()


def call(peer: Peer, service_type: type, name: str, request: object) -> object:
    """The answer of a service of the fusion node; one that may be asked twice."""
    return peer.ask(peer.node.create_client(service_type, f"/fusion_node/{name}"), request)


def change(peer: Peer, transition: int) -> bool:
    """Whether a transition succeeded; asked once the way of the answers is known to be open, as a second time would
    be refused.
    """
    client = peer.node.create_client(ChangeState, "/fusion_node/change_state")
    peer.ask(client, ChangeState.Request(transition=Transition(id=UNKNOWN_TRANSITION)))
    future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
    peer.wait_for(future.done, "the answer of change_state")
    return future.result().success


def state(peer: Peer) -> int:
    return call(peer, GetState, "get_state", GetState.Request()).current_state.id


def set_parameter(peer: Peer, name: str, value: float | str) -> object:
    kind = (
        ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        if isinstance(value, float)
        else ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
    )
    return call(
        peer, SetParameters, "set_parameters", SetParameters.Request(parameters=[Parameter(name=name, value=kind)])
    ).results[0]


def test_a_node_that_is_not_to_start_itself_goes_through_every_state_on_request(start_node, robot: Robot) -> None:
    start_node("autostart:=false")
    peer = robot.peer
    assert state(peer) == UNCONFIGURED
    assert change(peer, Transition.TRANSITION_CONFIGURE) and state(peer) == INACTIVE
    assert not robot.predictions
    assert change(peer, Transition.TRANSITION_ACTIVATE) and state(peer) == ACTIVE
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    assert change(peer, Transition.TRANSITION_DEACTIVATE) and state(peer) == INACTIVE
    assert change(peer, Transition.TRANSITION_ACTIVATE)
    before = len(robot.predictions)
    peer.wait_for(lambda: len(robot.predictions) > before, "predictions after the second activation")
    assert change(peer, Transition.TRANSITION_DEACTIVATE)
    assert change(peer, Transition.TRANSITION_CLEANUP) and state(peer) == UNCONFIGURED


def test_a_transition_that_is_not_possible_is_refused_and_the_node_goes_on(running: Robot) -> None:
    peer = running.peer
    peer.wait_for(lambda: running.predictions, "predictions")
    assert not change(peer, Transition.TRANSITION_CONFIGURE)
    assert state(peer) == ACTIVE
    before = len(running.predictions)
    peer.wait_for(lambda: len(running.predictions) > before, "predictions that go on")


def test_a_bad_model_leaves_the_node_unconfigured_with_a_reason_and_a_good_one_then_works(
    start_node, robot: Robot, tmp_path: Path
) -> None:
    node = start_node("autostart:=false", f"model:={tmp_path / 'nothing'}")
    peer = robot.peer
    assert not change(peer, Transition.TRANSITION_CONFIGURE)
    assert state(peer) == UNCONFIGURED
    peer.wait_for(lambda: "no such model directory" in robot.diagnosis("inference"), "diagnostics to give the reason")
    assert "no such model directory" in node.output() and "Traceback" not in node.output()
    assert set_parameter(peer, "model", str(MODEL)).successful
    assert change(peer, Transition.TRANSITION_CONFIGURE) and change(peer, Transition.TRANSITION_ACTIVATE)
    peer.wait_for(lambda: robot.predictions, "predictions")


def test_reloading_swaps_the_model_and_keeps_the_streams(start_node, robot: Robot, tmp_path: Path) -> None:
    start_node(*PATIENT)
    peer = robot.peer

    def feed() -> None:
        robot.images.publish(robot.image())

    robot.until("camera", StreamState.OK, feed)
    broken = tmp_path / "broken"
    shutil.copytree(MODEL, broken)
    (broken / "head.onnx").write_bytes(b"not a graph")
    assert set_parameter(peer, "model", str(broken)).successful
    answer = call(peer, Trigger, "reload_model", Trigger.Request())
    assert not answer.success and "SHA-256" in answer.message
    assert set_parameter(peer, "model", str(MODEL)).successful
    answer = call(peer, Trigger, "reload_model", Trigger.Request())
    assert answer.success, answer.message
    message = robot.image()
    robot.images.publish(message)
    peer.wait_for(
        lambda: any(p.header.stamp == message.header.stamp for p in robot.predictions), "a prediction by the new model"
    )
    assert robot.state("camera") is StreamState.OK


EVERY_FRAME = (
    *PATIENT,
    "scheduling:=inline",
    "qos_overrides./camera/image.subscription.reliability:=reliable",
    "qos_overrides./camera/image.subscription.depth:=100",
    "qos_overrides./fusion_node/prediction.publisher.depth:=1000",
)
"""So that no frame is lost to a busy machine: what is missing then was missed by the node."""


def test_no_frame_goes_unanswered_while_the_model_is_reloaded_at_30_hz(start_node, robot: Robot) -> None:
    peer, sent, answered, reloads = robot.peer, [], set(), []
    peer.node.destroy_publisher(robot.images)
    robot.images = peer.node.create_publisher(Image, "camera/image", 100)
    peer.node.create_subscription(
        FusedPrediction,
        "/fusion_node/prediction",
        lambda m: answered.add((m.header.stamp.sec, m.header.stamp.nanosec)),
        1000,
    )
    start_node(*EVERY_FRAME)
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    peer.wait_for(lambda: answered, "an answer", lambda: robot.images.publish(robot.image()))
    client = peer.node.create_client(Trigger, "/fusion_node/reload_model")
    peer.ask(client, Trigger.Request(), lambda: robot.images.publish(robot.image()))
    next_s = 0.0

    def play() -> None:
        nonlocal next_s
        if time.monotonic() < next_s or len(set(sent) - answered) > 20:
            return
        next_s = time.monotonic() + 1 / 30
        message = robot.image()
        robot.images.publish(message)
        sent.append((message.header.stamp.sec, message.header.stamp.nanosec))

    for _ in range(3):
        reloads.append(client.call_async(Trigger.Request()))
        before = len(sent)
        peer.wait_for(lambda: reloads[-1].done() and len(sent) >= before + 30, "a reload, and a second of frames", play)  # noqa: B023
    assert all(r.result().success for r in reloads)
    peer.wait_for(
        lambda: answered.issuperset(sent), f"every answer; {len(set(sent) - answered)} of {len(sent)} are missing"
    )


def test_disabling_holds_predictions_back_and_enabling_brings_them(start_node, robot: Robot) -> None:
    start_node()
    peer = robot.peer
    peer.wait_for(lambda: robot.predictions, "predictions")
    assert call(peer, SetBool, "set_enabled", SetBool.Request(data=False)).message == "disabled"
    peer.wait_for(lambda: "disabled" in robot.diagnosis("inference"), "diagnostics to say so")
    held, reports = len(robot.predictions), len(robot.diagnostics)
    peer.wait_for(lambda: len(robot.diagnostics) > reports, "one more diagnosis, many predictions' time later")
    assert len(robot.predictions) == held
    assert call(peer, SetBool, "set_enabled", SetBool.Request(data=True)).message == "enabled"
    peer.wait_for(lambda: len(robot.predictions) > held, "predictions again")


def test_a_node_that_starts_disabled_says_nothing_until_it_is_enabled(start_node, robot: Robot) -> None:
    start_node("enabled:=false")
    peer = robot.peer
    peer.wait_for(lambda: "disabled" in robot.diagnosis("inference"), "diagnostics to say so")
    reports = len(robot.diagnostics)
    peer.wait_for(lambda: len(robot.diagnostics) > reports, "one more diagnosis, many predictions' time later")
    assert not robot.predictions
    assert call(peer, SetBool, "set_enabled", SetBool.Request(data=True)).success
    peer.wait_for(lambda: robot.predictions, "predictions")


def test_the_least_confidence_changes_live(start_node, robot: Robot, tiny_bundle: Path) -> None:
    start_node(f"model:={tiny_bundle}")
    peer = robot.peer
    noise = np.random.default_rng(0)

    def feed() -> None:
        red = np.clip(np.array([230, 20, 20]) + noise.integers(-9, 10, (120, 160, 3)), 0, 255).astype(np.uint8)
        robot.images.publish(robot.image(data=red.tobytes()))

    def until(reason: str) -> None:
        peer.wait_for(
            lambda: (
                robot.predictions
                and robot.predictions[-1].modalities[0].used
                and robot.predictions[-1].abstain_reason == reason
            ),
            f"a prediction of the camera with the abstain_reason '{reason}'",
            feed,
        )

    until("")
    assert not set_parameter(peer, "min_confidence", 1.5).successful
    assert set_parameter(peer, "min_confidence", 1.0).successful
    until("low confidence")
    assert set_parameter(peer, "min_confidence", 0.0).successful
    until("")


def test_thresholds_change_live_and_contradictions_are_refused_with_a_reason(start_node, robot: Robot) -> None:
    start_node()
    peer = robot.peer
    robot.until("camera", StreamState.OK, lambda: robot.images.publish(robot.image()))
    refused = set_parameter(peer, "camera.stale_after_s", 5.0)
    assert not refused.successful and "stale_after_s <= dropped_after_s" in refused.reason
    assert not set_parameter(peer, "camera.stale_after_s", -1.0).successful
    refused = set_parameter(peer, "device", "abacus")
    assert not refused.successful and "use one of" in refused.reason
    assert set_parameter(peer, "camera.dropped_after_s", 60.0).successful
    assert set_parameter(peer, "camera.stale_after_s", 50.0).successful
    robot.until(
        "camera", StreamState.OK, lambda: robot.images.publish(robot.image())
    )  # it may have been silent for too long before
    before = len(robot.predictions)
    peer.wait_for(
        lambda: len(robot.predictions) >= before + 10,
        "ten predictions without a frame, which take longer than the old threshold",
    )
    assert robot.state("camera") is StreamState.OK


def test_parameters_describe_themselves(running: Robot) -> None:
    answer = call(
        running.peer,
        DescribeParameters,
        "describe_parameters",
        DescribeParameters.Request(names=["camera.stale_after_s", "device"]),
    )
    stale, device = answer.descriptors
    assert "[s]" in stale.description and "takes effect at once" in stale.description
    assert stale.floating_point_range[0].from_value > 0
    assert "cuda" in device.additional_constraints


def test_model_info_is_latched_and_names_labels_and_hashes(running: Robot) -> None:
    peer = running.peer
    heard: list[String] = []
    peer.node.create_subscription(String, "/fusion_node/model_info", heard.append, LATCHED_QOS)
    peer.wait_for(lambda: heard, "the latched model info")
    manifest = load_bundle(MODEL).manifest
    info = json.loads(heard[0].data)
    assert info["labels"] == manifest.labels and info["files"] == manifest.files
    assert info["calibration"]["coverage"] == manifest.calibration.coverage


def test_debug_image_is_drawn_for_a_listener(running: Robot) -> None:
    robot = running
    drawn: list[Image] = []
    robot.peer.node.create_subscription(Image, "/fusion_node/debug_image", drawn.append, 1)
    robot.peer.wait_for(lambda: drawn, "a debug image", lambda: robot.images.publish(robot.image()))
    assert drawn[0].encoding == "rgb8" and drawn[0].width >= 320 and drawn[0].height > 120
    assert len(drawn[0].data) == drawn[0].step * drawn[0].height and drawn[0].header.frame_id == "front_camera"


def test_classification_has_every_label_best_first(running: Robot) -> None:
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    robot = running
    heard: list = []
    robot.peer.node.create_subscription(vision.Classification, "/fusion_node/classification", heard.append, 10)
    robot.peer.wait_for(lambda: heard, "a classification", lambda: robot.images.publish(robot.image()))
    scores = [result.score for result in heard[0].results]
    assert scores == sorted(scores, reverse=True)
    assert {result.class_id for result in heard[0].results} == set(load_bundle(MODEL).manifest.labels)
    robot.peer.wait_for(
        lambda: heard[-1].header.frame_id == "front_camera",
        "the camera's frame",
        lambda: robot.images.publish(robot.image()),
    )


def test_label_info_is_latched_and_numbers_the_labels(running: Robot) -> None:
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    heard: list = []
    running.peer.node.create_subscription(vision.LabelInfo, "/fusion_node/label_info", heard.append, LATCHED_QOS)
    running.peer.wait_for(lambda: heard, "the latched label info")
    assert [(c.class_id, c.class_name) for c in heard[0].class_map] == list(
        enumerate(load_bundle(MODEL).manifest.labels)
    )


def test_the_page_of_parameters_is_current() -> None:
    assert (ROOT / "docs" / "parameters.md").read_text() == page(), (
        "run: python -m aecf_ros.nodes.tools.parameters_page > docs/parameters.md"
    )


def test_the_page_of_parameters_begins_with_how_to_set_one_by_names_that_there_are() -> None:
    head = page().split("\n## ")[0]
    set_there = re.findall(r"(?:-p |param set /fusion_node )(?:camera\.)?(\w+)", head)
    assert len(set_there) == 2 and set(set_there) <= {p.name for p in (*NODE, *STREAM)}
    launch = (ROOT / "launch" / "fusion.launch.py").read_text()
    arguments = re.findall(r"(\w+):=[\w.]+[ `]", head.replace("stale_after_s:=", ""))
    assert {"params_file", "device"} <= set(arguments) and all(f'"{name}": (' in launch for name in arguments)


def test_the_page_of_tuning_names_parameters_and_keys_that_there_are() -> None:
    declared = {p.name for p in (*NODE, *STREAM, *options_of("image"), *options_of("audio"))}
    others = {"abstain_reason", "summary.json", "false_alarms", "ece", "ece_noise_floor"}
    text = (ROOT / "docs" / "tuning.md").read_text()
    named = set(re.findall(r"`(?:camera\.|audio\.)?([a-z]+[._][a-z._]+)(?:: 0)?`", text)) - others - {"report.html"}
    assert len(named) > 10 and named <= declared
    status = StreamStatus("camera", StreamState.OK, "", 0.1, 15.0, 1, 0, 15.0, 0.1, 0.35, 1.0, False)
    keys = set(diagnose_stream(status).values)
    assert set(re.findall(r"`([a-z ]+ \(.*?\))`", text)) <= keys
