"""Make `.venv` and install the project into it; does nothing when neither requirements nor place changed.

Runs with the system's Python before anything is installed, so it needs the standard library alone.
"""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 10)
OLDEST_EXACT = (3, 11)  # below it some of the exact versions of constraints.txt cannot be installed
EXTRAS = "test"  # includes book and study
COMPANION = "mmoe_companion.pth"  # among the installed packages: the folder of the book's own package


def set_up(root: Path) -> None:
    """Bring `.venv` up to date.

    Raises:
        SystemExit: with one line that says what is missing.
    """
    folder = root / ".venv"
    python = folder / "bin" / "python"
    if not _works(python):
        _create(folder)
    wanted = _inputs(root, python)
    stamp = folder / "installed.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print("installing into .venv (once, a few minutes)", flush=True)
    stamp.unlink(missing_ok=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", str(_constraints(root, folder, python)), "--editable", f"{root}[{EXTRAS}]"]
    if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit("error: pip could not install the project, see its last lines above; then run make again")
    _show_companion(root, python)
    stamp.write_text(wanted, encoding="utf-8")


def _show_companion(root: Path, python: Path) -> None:
    """Let `.venv` import the book's own package, which is not installed: python -m companion.study works from anywhere."""
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    (packages / COMPANION).write_text(f"{root / 'book'}\n", encoding="utf-8")


def _create(folder: Path) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info[:2] < OLDEST:
        sys.exit(
            f"error: this is Python {version}, expected 3.10 or newer: run make PYTHON=/path/to/python3.11"
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"error: Python {version} cannot make virtual environments here: "
            f"run `sudo apt install python{version}-venv`, then make again"
        )
    print(f"making .venv with Python {version}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=False)
    if made.returncode != 0:
        sys.exit(
            "error: python -m venv failed, see above: "
            f"on Debian run `sudo apt install python{version}-venv`, then make again"
        )


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    asked = subprocess.run([str(python), "-m", "pip", "--version"], check=False, capture_output=True)
    return asked.returncode == 0


def _version(python: Path) -> tuple[int, int]:
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    major, minor = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(major), int(minor)


def _constraints(root: Path, folder: Path, python: Path) -> Path:
    exact = root / "constraints.txt"
    if _version(python) >= OLDEST_EXACT:
        return exact
    print("Python 3.10: of the exact versions in constraints.txt only torch's is used", flush=True)
    torch = [line for line in exact.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    alone = folder / "constraints-torch.txt"
    alone.write_text("\n".join(torch) + "\n", encoding="utf-8")
    return alone


def _inputs(root: Path, python: Path) -> str:
    digest = hashlib.sha256(f"{root}\n{_version(python)}\n{EXTRAS}\n{COMPANION}\n".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    set_up(ROOT)
