"""The wheel, installed into an empty environment and used in an empty directory, as a user would."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAYLOAD = '{"values": {"air_temperature": {"v": 70.7, "u": "[degF]"}}}'
DEADLINE_S = 150.0

pytestmark = [pytest.mark.live, pytest.mark.slow]


class Installed:
    """An environment that has the wheel and its dependencies, and an empty directory to work in."""

    def __init__(self, environment: Path, directory: Path) -> None:
        self.bin = environment / "bin"
        self.directory = directory

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the empty directory, with nothing inherited from this process."""
        return subprocess.run(
            [str(self.bin / arguments[0]), *arguments[1:]],
            input=given,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "COLUMNS": "200"},
            timeout=DEADLINE_S,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository, built without a network."""
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked by uv; its dependencies are those of the locked environment, which need no second download."""
    environment: Path = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    install = [
        str(Path(sys.executable).with_name("uv")),
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--compile-bytecode",
    ]
    subprocess.run([*install, "--python", python, str(wheel)], check=True)
    # A path file adds the packages of the locked environment alone: path files in there, that of the checkout among
    # them, are not read.
    packages = sysconfig.get_path("purelib")
    (python_lib,) = (environment / "lib").iterdir()
    (python_lib / "site-packages" / "dependencies.pth").write_text(f"{packages}\n", encoding="utf-8")
    (environment / "bin" / "nats-server").symlink_to(Path(sys.executable).with_name("nats-server"))
    return environment


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    """Commands of the environment, in a directory of this test."""
    return Installed(environment, tmp_path)


def test_the_wheel_holds_every_profile_and_no_test(wheel: Path) -> None:
    """Each file of device_profiles/ is in it; benchmarks, test rigs and caches are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    profiles = {str(path.relative_to(ROOT)) for path in (ROOT / "device_profiles").rglob("*") if path.is_file()}
    assert len(profiles) > 100
    assert {f"sensegate/{name}" for name in profiles} <= names
    assert {name.partition("/")[0] for name in names} == {"sensegate", f"sensegate-{version('sensegate')}.dist-info"}
    assert not [name for name in names if "test" in name.split("/") or name.endswith(".pyc")]


def test_only_the_wheel_is_imported(installed: Installed) -> None:
    """Otherwise the other tests here would be of the checkout."""
    result = installed.run(
        "python", "-c", "import sensegate, sensegate.config.builtin as b; print(sensegate.__file__, b.PROFILES)"
    )
    environment = str(installed.bin.parent)
    assert [word.startswith(environment) for word in result.stdout.split()] == [True, True]


def test_check_and_explain_take_the_profiles_of_the_package(installed: Installed) -> None:
    """Without a folder of one's own, and all are good; a configuration that names none is good too."""
    checked = installed.run("sensegate", "check")
    assert re.search(r"^1\d\d files, 0 problems", checked.stdout, re.MULTILINE), checked
    (installed.directory / "node.yaml").write_text("role: node\ndivision: '4401'\ndirectory: data\n", encoding="utf-8")
    assert "1 file, 0 problems" in installed.run("sensegate", "check", "node.yaml").stdout
    explained = installed.run("sensegate", "explain", "--topic", "sg/d1/up", "--device", "d1", "-", given=PAYLOAD)
    assert "d1 air_temperature = 21.5 Cel" in explained.stdout, explained


def test_a_profile_begins_with_the_template_of_the_package(installed: Installed) -> None:
    """`profile new` writes into the directory; `profile test` reads from there."""
    assert installed.run("sensegate", "profile", "new", "acme/th10").returncode == 0
    tested = installed.run("sensegate", "profile", "test", "acme/th10")
    assert "1 profile, 0 problems" in tested.stdout, tested


def test_the_package_has_no_benchmarks(installed: Installed) -> None:
    """It says so in one sentence."""
    result = installed.run("sensegate", "bench", "drain")
    assert result.returncode == 2
    assert re.fullmatch(
        r"sensegate: no benchmarks in \S+; start it in a checkout of the repository; .*\n", result.stderr
    )


def test_the_demo_runs(installed: Installed) -> None:
    """A centre and a node start, everything that was published is accounted for, and no process complains."""
    options = ("--for", "5s", "--nodes", "1", "--cameras", "4", "--devices", "20", "--rate", "50")
    ran = installed.run("sensegate", "demo", *options)
    assert ran.returncode == 0, ran
    assert "nothing lost, nothing doubled" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
