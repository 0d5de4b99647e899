"""The wheel that is shipped: what is in it, the same bytes twice, its size limit."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import mutirao
from cluster.package import build_wheel, check_size, unpack
from mutirao.core.distribution import PACKAGES, check_one_distribution
from mutirao.core.errors import EnvironmentProblem, UserError

ROOT = Path(__file__).resolve().parents[2]


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_four_packages_and_nothing_else_of_the_repository(wheel):
    tops = {name.split("/")[0] for name in names_of(wheel)}
    assert tops == {*PACKAGES, f"mutirao-{mutirao.__version__}.dist-info"}
    assert {"mutirao/assets/lid.ftz", "cluster/package.py"} <= names_of(wheel)
    assert not any(name.endswith(".pyc") or name.startswith("platform") for name in names_of(wheel))


def test_the_same_code_gives_the_same_bytes(wheel, tmp_path):
    assert build_wheel(tmp_path).read_bytes() == wheel.read_bytes()


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A site-packages folder in which the wheel was installed, with an installer's own traces."""
    site = tmp_path_factory.mktemp("site")
    unpack(wheel, site)
    info = site / f"mutirao-{mutirao.__version__}.dist-info"
    (info / "INSTALLER").write_text("pip\n")
    with open(info / "RECORD", "a", encoding="utf-8") as record:
        record.write(f"{info.name}/INSTALLER,,\n../../../bin/mutirao,,\n")
        record.write("cluster/__pycache__/package.cpython-311.pyc,,\n")
    return site


def run_from(site: Path, program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run with `site` first on the import path, as the job on a cluster does."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=site,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


REPACK = """
import sys
from pathlib import Path
from cluster.package import build_wheel
print(build_wheel(Path(sys.argv[1])))
"""


def test_an_installed_wheel_is_packed_again_with_the_same_content(wheel, installed, tmp_path):
    outputs = []
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        result = run_from(installed, REPACK, str(tmp_path / number))
        assert result.returncode == 0, result.stderr
        outputs.append(Path(result.stdout.strip()))
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert names_of(outputs[0]) == names_of(wheel)
    with zipfile.ZipFile(outputs[0]) as again, zipfile.ZipFile(wheel) as built:
        for name in names_of(wheel):
            if not name.endswith("/RECORD"):
                assert again.read(name) == built.read(name), name


def test_pip_installs_the_repacked_wheel(installed, tmp_path):
    """pip checks the names and hashes of RECORD."""
    path = Path(run_from(installed, REPACK, str(tmp_path)).stdout.strip())
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, f"--target={target}", str(path)], check=True, timeout=60)
    assert (target / "cluster" / "package.py").is_file()
    info = target / f"mutirao-{mutirao.__version__}.dist-info"
    assert Parser().parsestr((info / "METADATA").read_text())["Name"] == "mutirao"


def test_a_package_above_the_limit_names_its_largest_files(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(b"x" * 3000)
    (tmp_path / "small.txt").write_bytes(b"x" * 10)
    assert check_size(tmp_path, limit=3010) == 3010
    with pytest.raises(UserError) as caught:
        check_size(tmp_path, limit=3009)
    assert caught.value.code == "package-too-large"
    rows = caught.value.hint.splitlines()[1:]
    assert [row.split() for row in rows] == [["3,000", "corpus.txt"], ["10", "small.txt"]]


def test_all_packages_come_from_this_source_tree():
    assert check_one_distribution() == ROOT


DESCRIBE = """
from mutirao.core.distribution import check_one_distribution
from mutirao.core.errors import UserError
try:
    check_one_distribution()
except UserError as error:
    print(error.exit_code, error.code, error)
"""


@pytest.mark.parametrize("name", ["data_jobs", "cluster"])
def test_a_foreign_package_earlier_on_the_path_is_named(installed, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{DESCRIBE}"
    answer = run_from(installed, program).stdout
    assert answer.startswith(f"{EnvironmentProblem.exit_code} two-distributions")
    assert str(tmp_path) in answer
    assert str(installed) in answer


def test_the_command_line_refuses_mixed_code_with_exit_code_4(installed, tmp_path):
    (tmp_path / "data_jobs").mkdir()
    (tmp_path / "data_jobs" / "__init__.py").write_text("")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['mutirao', '--version']\n"
        "from mutirao.cli.main import main; main()"
    )
    result = run_from(installed, program)
    assert result.returncode == 4
    assert "data_jobs and mutirao come from different places" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_package_is_named(wheel, tmp_path):
    unpack(wheel, tmp_path / "site")
    (tmp_path / "site" / "train_jobs").rename(tmp_path / "site" / "away")
    program = f"import sys; sys.path[0] = {str(tmp_path / 'site')!r}\n{DESCRIBE}"
    isolated = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, cwd="/", timeout=60
    )
    assert "no-package The package train_jobs is not installed" in isolated.stdout
