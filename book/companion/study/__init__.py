"""Studies: lists of independent cells whose rows go to CSV files with their origin, and can be resumed."""

from companion.study.cells import Cell, run_cells
from companion.study.origin import Origin

__all__ = ["Cell", "Origin", "run_cells"]
