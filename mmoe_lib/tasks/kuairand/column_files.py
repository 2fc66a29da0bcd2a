"""Columns of numbers as .npy files: written piece by piece, and mapped into memory instead of read.

Any program that knows numpy's format opens them. A column may be larger than memory at both ends.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class ColumnWriter:
    """Writes a column (N, ...) whose N is not known before the last piece; use it in a `with` block.

    The file is a whole .npy file after the block only.

    Args:
        path: a new file, or one to be replaced.
        dtype: of the numbers.
        shape: of one row, () for a plain column.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...] = ()) -> None:
        self.dtype, self.shape, self.num_rows = np.dtype(dtype), shape, 0
        self._file = path.open("wb")
        self._write_header()
        self._header_ends = self._file.tell()

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next rows (B, ...).

        Raises:
            ValueError: they are of another type or shape than the column.
            OSError: they cannot be written.
        """
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape:
            raise ValueError(
                f"{Path(self._file.name).stem} holds {rows.dtype} rows of shape {rows.shape[1:]}, expected "
                f"{self.dtype} rows of shape {self.shape}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()
                # numpy leaves room in the header so that the number of rows may grow.
                assert self._file.tell() == self._header_ends

    def _write_header(self) -> None:
        shape = (self.num_rows, *self.shape)
        header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)


def mapped(path: Path) -> NDArray[Any]:
    """A column as an array whose numbers are read from the file when they are looked at.

    They count as this process's memory from then on until the array is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, has something behind its end, or is no column of numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"the column file {path} is missing, expected a .npy file: write the store again"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is cut short or damaged, expected a whole .npy file: write the store again ({reason})"
        ) from error
    if not isinstance(array, np.memmap) or array.ndim < 1:
        raise ValueError(f"{path} is no column of numbers, expected a .npy file with one row or more")
    end, size = array.offset + array.nbytes, path.stat().st_size
    if end != size:
        raise ValueError(
            f"{path} has {size:,} bytes, expected {end:,} as its header says: write the store again"
        )
    return array
