"""What the kernels of all notebooks find in their environment, in the build, in `make outputs` and in nbval."""

from collections.abc import MutableMapping
from pathlib import Path

KERNEL_ENVIRONMENT = {
    # A progress bar writes times, which no stored output may hold.
    "TQDM_DISABLE": "1",
    # One process a core with one thread each: faster than threads here, and the order of sums is fixed.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Needed for repeatable matrix products with CUDA.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTHONHASHSEED": "0",
    # The debugger's warning about frozen modules would end up in front of the first output.
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
# Set by users for their scripts; in a notebook each would hide or change the figures.
UNWANTED = ("MPLBACKEND", "MATPLOTLIBRC")


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Set in place what a kernel started from here inherits."""
    environment.update(KERNEL_ENVIRONMENT)
    for name in UNWANTED:
        environment.pop(name, None)
    if environment.get("MMOE_DATA"):
        # Given relative to the folder of the command; kernels run in book/.
        environment["MMOE_DATA"] = str(Path(environment["MMOE_DATA"]).resolve())
