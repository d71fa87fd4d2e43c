"""docs/parameters.md, from the declarations: ``python -m aecf_ros.nodes.parameters_page > docs/parameters.md``."""
from __future__ import annotations

from aecf_ros.nodes import camera_node, evaluator_node, microphone_node
from aecf_ros.nodes.driver import read_once
from aecf_ros.nodes.parameters import AUDIO, AUTOSTART, ENABLED, IMAGE, LIVES, NODE, STREAM, VECTOR, Parameter

GROUPS: dict[str, tuple[Parameter, ...]] = {
    "`fusion_node`": (*NODE, ENABLED, AUTOSTART),
    "`fusion_node`, each stream: `camera.NAME`, `audio.NAME`": STREAM,
    "`fusion_node`, each camera: `camera.NAME`": IMAGE,
    "`fusion_node`, each microphone: `audio.NAME`": AUDIO,
    "`fusion_node`, each stream of vectors: `text.NAME`": VECTOR,
    "`camera_node`": read_once(camera_node.CAMERA),
    "`microphone_node`": read_once(microphone_node.MICROPHONE),
    "`evaluator_node`": read_once(evaluator_node.PARAMETERS),
}


def page() -> str:
    """The page, in Markdown."""
    lines = ["# Parameters", "",
             "Made by `python -m aecf_ros.nodes.parameters_page` from the declarations in `aecf_ros/nodes/`; a test keeps it current.",
             "`ros2 param describe /fusion_node NAME` says the same on the robot. Set them in a copy of `config/fusion_node.yaml`, passed to the launch",
             "file as `params_file`. Each topic has its QoS overrides besides: `qos_overrides./camera/image.subscription.depth` and so on."]
    for title, parameters in GROUPS.items():
        lines += ["", f"## {title}", "", "| name | default | allowed | what it is | a change |", "|---|---|---|---|---|", *map(_row, parameters)]
    return "\n".join(lines) + "\n"


def _row(p: Parameter) -> str:
    allowed = ", ".join(f"`{c}`" if c else "empty" for c in p.choices) or (f"{p.bounds[0]:g} to {p.bounds[1]:g}" if p.bounds else "any")
    default = f"`{p.default}`" if p.default != "" else "empty"
    return f"| `{p.name}` | {default}{' ' + p.unit if p.unit else ''} | {allowed} | {p.description} | {LIVES[p.life]} |"


if __name__ == "__main__":
    print(page(), end="")
