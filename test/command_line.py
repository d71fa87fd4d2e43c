"""`aecf` as it is typed."""

from click.testing import CliRunner, Result

from aecf_ros.cli import main


def aecf(*words: object) -> Result:
    """What a command answers; what it does not foresee is raised."""
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def refusal(*words: object) -> str:
    """The one line in which a command ends that refuses what it is given."""
    done = aecf(*words)
    lines = done.output.strip().splitlines()
    assert done.exit_code == 1 and len(lines) == 1 and lines[0].startswith("Error: "), done.output
    return lines[0]
