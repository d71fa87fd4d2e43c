"""The page docs/parameters.md, made from the declarations.

``python -m aecf_ros.nodes.tools.parameters_page > docs/parameters.md``
"""

from __future__ import annotations

from aecf_ros.nodes.drivers import camera_node, microphone_node
from aecf_ros.nodes.drivers.driver import read_once
from aecf_ros.nodes.fusion.parameters import AUTOSTART, ENABLED, LIVES, NODE, STREAM, Parameter, options_of
from aecf_ros.nodes.tools import evaluator_node

GROUPS: dict[str, tuple[Parameter, ...]] = {
    "`fusion_node`": (*NODE, ENABLED, AUTOSTART),
    "`fusion_node`, each stream: `camera.NAME`, `audio.NAME`": STREAM,
    "`fusion_node`, each camera: `camera.NAME`": options_of("image"),
    "`fusion_node`, each microphone: `audio.NAME`": options_of("audio"),
    "`fusion_node`, each stream of vectors: `text.NAME`": options_of("vector"),
    "`camera_node`": read_once(camera_node.CAMERA),
    "`microphone_node`": read_once(microphone_node.MICROPHONE),
    "`evaluator_node`": read_once(evaluator_node.PARAMETERS),
}
HEAD = """# Parameters

Every parameter of every node. Most robots need few of them; [tuning.md](tuning.md) says which one to change.
`camera`, `audio` and `text` stand for the modalities of your model: `camera.stale_after_s` is
`rear.stale_after_s` for a modality `rear`. Ways to set one:

| where | how | holds |
|---|---|---|
| parameter file | copy [fusion_node.yaml](../config/fusion_node.yaml); `params_file:=robot.yaml` | each start |
| launch argument | `ros2 launch aecf_ros fusion.launch.py device:=cpu`; see `--show-args` | that launch |
| command line | `ros2 run ... --ros-args -p camera.stale_after_s:=0.8` | that start |
| live | `ros2 param set /fusion_node camera.stale_after_s 0.8` | until the node ends; see the last column |

The drivers have files of their own: `camera_params_file` and `microphone_params_file`. Write `1.0`, not `1`, where
the default has a decimal point. A value out of range is refused with the reason. `ros2 param describe /fusion_node
NAME` prints the same descriptions. Each topic also has QoS overrides:
`qos_overrides./camera/image.subscription.depth` and so on.

Made by `python -m aecf_ros.nodes.tools.parameters_page` from the declarations in `aecf_ros/nodes/`; a test keeps it
current."""


def page() -> str:
    """The page, in Markdown."""
    lines = [HEAD]
    for title, parameters in GROUPS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| name | default | allowed | what it is | a change |",
            "|---|---|---|---|---|",
            *map(_row, parameters),
        ]
    return "\n".join(lines) + "\n"


def _row(p: Parameter) -> str:
    allowed = ", ".join(f"`{c}`" if c else "empty" for c in p.choices) or (
        f"{p.bounds[0]:g} to {p.bounds[1]:g}" if p.bounds else "any"
    )
    default = f"`{p.default}`" if p.default != "" else "empty"
    return f"| `{p.name}` | {default}{' ' + p.unit if p.unit else ''} | {allowed} | {p.description} | {LIVES[p.life]} |"


if __name__ == "__main__":
    print(page(), end="")
