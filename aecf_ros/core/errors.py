"""Messages of other libraries' exceptions, shortened to fit a one-line error."""

from __future__ import annotations

FIRST_LINE, ONE_LINE = 160, 200
"""Characters kept."""

BUILD_MESSAGES = (
    "colcon and rosdep do not look inside this repository for aecf_msgs; in the workspace run "
    "`colcon build --base-paths src src/aecf_ros/aecf_msgs`, then `source install/setup.bash`"
)
"""What to do where the message package is missing: setup.py, nodes, launch files and ``aecf doctor`` say it."""


def first_line(error: Exception, limit: int | None = FIRST_LINE) -> str:
    """First line of an exception's message, or its type if the message is empty; ``limit`` in characters.

    >>> first_line(ValueError("no such axis\\nin node 3")), first_line(KeyError())
    ('no such axis', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def one_line(error: Exception) -> str:
    """An exception's message on one line, for libraries whose second line matters.

    >>> one_line(ValueError("shape mismatch:\\n  [3] and [4]"))
    'shape mismatch: [3] and [4]'
    """
    return " ".join(str(error).split())[:ONE_LINE]
