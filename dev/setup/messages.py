"""Build the message packages against the ROS 2 wheels, and install them into the virtual environment.

The wheels make the environment an install prefix: `share/` with the ament index and CMake files, `lib/` with the
libraries, which the wheels' start-up hook puts on LD_LIBRARY_PATH. Packages installed there are found with nothing
sourced. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import IO

# Set by the wheels' start-up hook; a child Python of another environment that inherits it would skip its own hook.
BOOTSTRAP_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
# Include folders of the wheels' build machine, exported in their CMake targets.
FOREIGN_NUMPY = re.compile(r"/opt/python/cp3\d+-cp3\d+/lib/[^;\"]*/numpy/(?:_core|core)/include")
FOREIGN_PYTHON = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
# Generated code that is waited for: unoptimized builds in half the time and costs microseconds a message.
COMPILER_FLAGS = "-O0"


def redirect_exported_includes(venv: Path, python_include: Path, numpy_include: Path) -> int:
    """Point the wheels' CMake targets at this machine's Python and NumPy headers.

    Returns:
        Number of files changed; 0 where it was done before.
    """
    changed = 0
    for path in venv.glob("share/*/cmake/*Export.cmake"):
        text = path.read_text()
        redirected = FOREIGN_PYTHON.sub(str(python_include), FOREIGN_NUMPY.sub(str(numpy_include), text))
        if redirected != text:
            path.write_text(redirected)
            changed += 1
    return changed


def find_ament_package() -> Path:
    """Folder of Debian's `ament_package` module, which no wheel provides.

    Raises:
        FileNotFoundError: where python3-ament-package is not installed.
    """
    for folder in (Path("/usr/lib/python3/dist-packages"), *map(Path, sys.path)):
        if (folder / "ament_package" / "__init__.py").is_file():
            return folder / "ament_package"
    raise FileNotFoundError("the Python module ament_package was not found; install python3-ament-package")


def build_messages(packages: list[Path], venv: Path, prefix: Path, build: Path, jobs: int, log: IO[str]) -> None:
    """Configure, build and install the packages, which must not depend on each other.

    Args:
        packages: source folders, each with a CMakeLists.txt.
        venv: virtual environment that holds the ROS 2 wheels.
        prefix: where they are installed; `venv` itself, unless two packages of one name are wanted.
        build: folder for build trees; those there before are replaced.
        jobs: compilers at a time.
        log: receives the output of every tool.

    Raises:
        subprocess.CalledProcessError: where a tool fails.
        FileNotFoundError: where ament_package or the Python headers are missing.
    """
    python = venv / "bin" / "python"
    numpy_include = Path(
        subprocess.run(
            [python, "-c", "import numpy; print(numpy.get_include())"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    python_include = Path(sysconfig.get_path("include"))
    if not (python_include / "Python.h").is_file():
        raise FileNotFoundError(f"{python_include}/Python.h was not found; install the headers of this Python")
    redirect_exported_includes(venv, python_include, numpy_include)

    # Only this module: the whole of dist-packages would put Debian's other modules before the environment's.
    modules = build / "modules"
    modules.mkdir(parents=True, exist_ok=True)
    link = modules / "ament_package"
    link.unlink(missing_ok=True)
    link.symlink_to(find_ament_package())

    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AMENT_", "CMAKE_", "ROS_"))}
    environment["AMENT_PREFIX_PATH"] = str(venv)
    environment["PYTHONPATH"] = str(modules)
    environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
    # The generators load no ROS library: without the hook's re-execution each of their many starts is twice as fast.
    environment[BOOTSTRAP_MARK] = "1"

    trees = [build / package.name for package in packages]
    configure = []
    for package, tree in zip(packages, trees, strict=True):
        shutil.rmtree(tree, ignore_errors=True)
        command = ["cmake", "-G", "Ninja", "-S", package, "-B", tree]
        definitions = {
            "CMAKE_PREFIX_PATH": venv,
            "CMAKE_INSTALL_PREFIX": prefix,
            "CMAKE_INSTALL_MESSAGE": "NEVER",
            "CMAKE_BUILD_TYPE": "None",
            "CMAKE_C_FLAGS": COMPILER_FLAGS,
            "CMAKE_CXX_FLAGS": COMPILER_FLAGS,
            "Python3_EXECUTABLE": python,
            "Python3_INCLUDE_DIR": python_include,
            "Python3_NumPy_INCLUDE_DIR": numpy_include,
            "BUILD_TESTING": "OFF",
        }
        command += [f"-D{key}={value}" for key, value in definitions.items()]
        configure.append((command, subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)))
    for command, process in configure:
        if process.wait() != 0:
            raise subprocess.CalledProcessError(process.returncode, command)
    for tree in trees:
        command = ["cmake", "--build", tree, "--target", "install", "--parallel", str(jobs)]
        subprocess.run(command, check=True, env=environment, stdout=log, stderr=subprocess.STDOUT)
