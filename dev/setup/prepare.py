"""Prepare this checkout: Debian packages, virtual environment, message packages, the package itself.

    python3 dev/setup/prepare.py {demo,train,test,bench}

Each step leaves a stamp of its inputs in `.venv/stamps`, so that a second run does nothing. Standard library only:
this runs before anything is installed. Exit codes: 0 ready, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import messages

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
BUILD = ROOT / "build" / "setup"
LOG = BUILD / "setup.log"
WORKSPACE = ROOT / "build" / "interfaces"

PYTHON_TAG = f"{sys.version_info.major}.{sys.version_info.minor}"
PROFILES = ("demo", "train", "test", "bench")
REQUIREMENTS = {
    "demo": ["demo.txt"],
    "train": ["demo.txt", "train.txt"],
    "test": ["demo.txt", "train.txt", "dev.txt"],
    "bench": ["demo.txt", "train.txt", "dev.txt"],
}
MESSAGE_PACKAGES = [
    ROOT / "aecf_msgs",
    ROOT / "dev" / "interfaces" / "audio_common_msgs",
    ROOT / "dev" / "interfaces" / "vision_msgs",
]
# The other package named audio_common_msgs, and foxglove_msgs: tests put this prefix before the environment's.
OTHER_DIALECT = [
    ROOT / "dev" / "interfaces" / "other_dialect" / "audio_common_msgs",
    ROOT / "dev" / "interfaces" / "other_dialect" / "foxglove_msgs",
]
OTHER_DIALECT_PREFIX = VENV / "other_dialect"
UPSTREAM = "aecf==0.1.0"
# Not in site-packages: only the benchmark puts this folder on its path, and the environment stays as pinned.
UPSTREAM_FOLDER = VENV / "upstream"
# Shared libraries of the opencv-python wheel.
LIBRARIES = ["libgl1", "libglib2.0-0"]
# Compiler and build tools of the message packages: by the command that shows they are there without dpkg.
BUILD_TOOLS = {"g++": "g++", "cmake": "cmake", "ninja-build": "ninja"}
# Virtual microphone and synthetic speech of the tests.
TEST_TOOLS = ["libportaudio2", "espeak-ng", "alsa-utils", "libasound2-plugins"]


class SetupError(Exception):
    """Set-up cannot go on. The text is one line: what was found, then what to do."""


class Steps:
    """Runs what is out of date, says so in a line each, and keeps the tools' output in one log."""

    def __init__(self) -> None:
        self.done = 0
        BUILD.mkdir(parents=True, exist_ok=True)

    def stamped(self, name: str, inputs: str, title: str, action: Callable[[], None]) -> None:
        """Run `action` unless the stamp `name` holds the digest of `inputs`."""
        stamp = STAMPS / name
        digest = hashlib.sha256(inputs.encode()).hexdigest()
        if stamp.is_file() and stamp.read_text() == digest:
            return
        self.run(title, action)
        STAMPS.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)

    def run(self, title: str, action: Callable[[], None]) -> None:
        """Run `action` under a line of its own.

        Raises:
            SetupError: where a command of the action fails.
        """
        if self.done == 0:
            LOG.write_text("")
        self.done += 1
        print(f"[setup] {title}", flush=True)
        start = time.monotonic()
        try:
            action()
        except subprocess.CalledProcessError as error:
            tail = LOG.read_text(errors="replace").splitlines()[-15:]
            print("\n".join(f"        {line}" for line in tail), file=sys.stderr)
            command = " ".join(str(part) for part in error.cmd[:4])
            log = LOG.relative_to(ROOT)
            raise SetupError(
                f"`{command} ...` failed ({error.returncode}) while: {title}; see {log}, mend that and run again"
            ) from error
        print(f"[setup]   done in {time.monotonic() - start:.0f} s", flush=True)


def run_logged(command: list[str | Path], environment: dict[str, str] | None = None) -> None:
    """Run a command with its output in the log; on a terminal the log's last line shows that it lives.

    Raises:
        subprocess.CalledProcessError: where it fails.
    """
    with LOG.open("a") as log:
        log.write("$ " + " ".join(str(part) for part in command) + "\n")
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        while True:
            try:
                process.wait(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if sys.stdout.isatty():
                    show_last_line()
        if sys.stdout.isatty():
            sys.stdout.write("\r\033[K")
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, command)


def show_last_line() -> None:
    """Overwrite the terminal's current line with the last one of the log."""
    lines = LOG.read_text(errors="replace")[-2000:].strip().splitlines()
    width = shutil.get_terminal_size().columns - 12
    sys.stdout.write(f"\r\033[K[setup]   {lines[-1].strip()[:width] if lines else ''}")
    sys.stdout.flush()


def file_digest(*paths: Path) -> str:
    """Names and content of files, and of every file below folders, as one text."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return "\n".join(
        f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files if file.is_file()
    )


def distribution_in_use() -> str | None:
    """Name of the ROS 2 distribution that is sourced here and has rclpy for this Python, or None."""
    name = os.environ.get("ROS_DISTRO")
    if not name or messages.BOOTSTRAP_MARK in os.environ:
        return None
    return name if importlib.util.find_spec("rclpy") else None


def missing_debian_packages(profile: str, with_wheels: bool) -> list[str]:
    """Debian packages that the profile needs and this machine lacks."""
    needed = list(LIBRARIES)
    if with_wheels:
        needed.append("python3-ament-package")
        needed += [package for package, command in BUILD_TOOLS.items() if not shutil.which(command)]
        if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
            needed.append(f"python{PYTHON_TAG}-dev")
    if not importlib.util.find_spec("ensurepip"):
        needed.append(f"python{PYTHON_TAG}-venv")
    if profile == "test":
        needed += TEST_TOOLS
    if not shutil.which("dpkg-query"):
        print(f"[setup] not a Debian system: make sure it has the equivalent of {' '.join(needed)}")
        return []
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}|${Package}|${Provides}\n"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    present = set()
    for line in listing.splitlines():
        status, package, provides = line.split("|", 2)
        if status == "installed":
            # Ubuntu 24.04 renamed libglib2.0-0 to libglib2.0-0t64, which provides the old name.
            present.update([package, *(entry.split()[0] for entry in provides.split(",") if entry.strip())])
    return [package for package in needed if package not in present]


def install_debian_packages(packages: list[str]) -> None:
    """Install by apt-get, with fresh package lists where the present ones do not know a package."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install: list[str | Path] = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    try:
        run_logged(install, environment)
    except subprocess.CalledProcessError:
        run_logged(["apt-get", "update"], environment)
        run_logged(install, environment)


def create_venv(system_packages: bool) -> None:
    """Make `.venv` anew, from the Python that runs this."""
    base = getattr(sys, "_base_executable", sys.executable)
    shutil.rmtree(VENV, ignore_errors=True)
    options = ["--system-site-packages"] if system_packages else []
    run_logged([base, "-m", "venv", *options, VENV], clean_environment())


def clean_environment() -> dict[str, str]:
    """This environment, less what another Python left in it."""
    return {key: value for key, value in os.environ.items() if key not in (messages.BOOTSTRAP_MARK, "PYTHONHOME")}


def install_requirements(files: list[Path], distribution: str | None) -> None:
    """Install the requirement files at the pinned versions.

    With a sourced distribution only NumPy is held, at the system's version: rclpy and the messages were compiled
    for it, and what else pip installs has to fit beside it.
    """
    constraints = HERE / "constraints.txt"
    if distribution:
        constraints = BUILD / "constraints.txt"
        version = subprocess.run(
            [sys.executable, "-c", "import numpy; print(numpy.__version__)"], check=True, capture_output=True, text=True
        ).stdout.strip()
        constraints.write_text(f"numpy=={version}\n")
    command: list[str | Path] = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "-c", constraints]
    for file in files:
        command += ["-r", file]
    run_logged(command, clean_environment())


def install_upstream() -> None:
    """Install the upstream package into a folder of its own, without the packages that it names and does not need."""
    options = ["--disable-pip-version-check", "--no-deps", "--upgrade", "--target"]
    run_logged([PYTHON, "-m", "pip", "install", *options, UPSTREAM_FOLDER, UPSTREAM], clean_environment())


def build_interfaces(distribution: str | None) -> None:
    """Make the message packages importable from `.venv`.

    With a sourced distribution: those it lacks are built by its colcon into `build/interfaces`, which the Makefile
    sources. That path has not been run by us.
    """
    if not distribution:
        with LOG.open("a") as log:
            messages.build_messages(MESSAGE_PACKAGES, VENV, VENV, BUILD / "messages", os.cpu_count() or 1, log)
        return
    lacking = [package for package in MESSAGE_PACKAGES if not importlib.util.find_spec(package.name)]
    if not lacking:
        return
    if not shutil.which("colcon"):
        names = " ".join(package.name for package in lacking)
        raise SetupError(f"ROS 2 {distribution} lacks {names}, and colcon is missing; install python3-colcon-ros")
    run_logged(
        ["colcon", "--log-base", WORKSPACE / "log", "build", "--base-paths", *lacking,
         "--build-base", WORKSPACE / "build", "--install-base", WORKSPACE / "install", "--merge-install"]
    )  # fmt: skip


def build_other_dialect() -> None:
    """Build the messages of the other `audio_common_msgs` into a prefix of their own, for the tests."""
    with LOG.open("a") as log:
        messages.build_messages(
            OTHER_DIALECT, VENV, OTHER_DIALECT_PREFIX, BUILD / "other_dialect", os.cpu_count() or 1, log
        )


def install_project() -> None:
    """Install the checkout itself, editable, so that `.venv/bin/aecf` runs the source."""
    options = ["--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run_logged([PYTHON, "-m", "pip", "install", *options, "-e", ROOT], clean_environment())


def prepare(profile: str) -> int:
    """Bring the checkout to the state the profile needs.

    Returns:
        Number of steps that had to run.

    Raises:
        SetupError: where that is not possible.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 (set-up runs under whatever python3 is)
        raise SetupError(f"Python {PYTHON_TAG} was found; 3.10 or newer is needed: make PYTHON=python3.12 {profile}")
    steps = Steps()
    distribution = distribution_in_use()
    missing = missing_debian_packages(profile, with_wheels=not distribution)
    if missing:
        if os.geteuid() != 0:
            raise SetupError(f"Debian packages are missing; run: sudo apt-get install {' '.join(missing)}")
        steps.run(f"Debian packages: {' '.join(missing)}", lambda: install_debian_packages(missing))

    # The place is part of it: scripts of a moved environment name a Python that is gone.
    venv_inputs = f"{ROOT} {distribution}"
    if not PYTHON.exists():
        shutil.rmtree(STAMPS, ignore_errors=True)
    source = f"with ROS 2 {distribution} of this system" if distribution else "for the ROS 2 Jazzy wheels"
    steps.stamped("venv", venv_inputs, f"Virtual environment .venv, Python {PYTHON_TAG}, {source}",
                  lambda: create_venv(bool(distribution)))  # fmt: skip

    files = [HERE / name for name in ([] if distribution else ["ros.txt"]) + REQUIREMENTS[profile]]
    for number, file in enumerate(files, start=1):
        size = " (some minutes: torch)" if file.name == "train.txt" else ""
        steps.stamped(file.name, file_digest(HERE / "constraints.txt", *files[:number]),
                      f"Python packages of {file.name}{size}",
                      lambda file=file: install_requirements([file], distribution))  # fmt: skip

    sources, other_sources = (
        [package / name for package in packages for name in ("msg", "CMakeLists.txt", "package.xml")]
        for packages in (MESSAGE_PACKAGES, OTHER_DIALECT)
    )
    if profile == "bench":
        steps.stamped("upstream", f"{UPSTREAM} {UPSTREAM_FOLDER}", f"The upstream package {UPSTREAM}, a baseline",
                      install_upstream)  # fmt: skip

    steps.stamped("messages", file_digest(*sources, HERE / "messages.py", HERE / "ros.txt"),
                  "Message packages: " + ", ".join(package.name for package in MESSAGE_PACKAGES),
                  lambda: build_interfaces(distribution))  # fmt: skip
    if profile == "test" and not distribution:
        steps.stamped("other_dialect", file_digest(*other_sources, HERE / "messages.py", HERE / "ros.txt"),
                      "Message packages for tests: the other audio_common_msgs, foxglove_msgs",
                      build_other_dialect)  # fmt: skip
    steps.stamped("project", file_digest(ROOT / "setup.py", ROOT / "setup.cfg"), "The package aecf_ros, editable",
                  install_project)  # fmt: skip
    return steps.done


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description="Prepare this checkout for make demo, aecf train, make test or make bench."
    )
    parser.add_argument("profile", choices=PROFILES)
    profile = parser.parse_args().profile
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        # Two makes at once would install into one environment.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            done = prepare(profile)
        except (SetupError, FileNotFoundError) as error:
            print(f"[setup] {error}", file=sys.stderr)
            return 1
    print(f"[setup] ready for {profile}" if done else f"[setup] nothing to do for {profile}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
