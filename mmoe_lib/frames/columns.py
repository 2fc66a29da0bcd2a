"""The border of the frames: rows, names and numbers are normalised here, and what a column holds is read from its type.

What cannot be meant is an error of one line. What may be meant is a warning that names the column.
"""

from __future__ import annotations

import math
import operator
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST = 1e37
"""Numbers above this, or differences below its inverse, are too near to the limits of float32."""

_NUMBERS = ("boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty")
_TEXT = ("string", "mixed-integer")
_CODE = re.compile(r"0\d")  # a zip code or the like: no number is written so


def warn(message: str) -> None:
    """A warning about data or training, told once a call."""
    warnings.warn(message, UserWarning, stacklevel=4)


def frame_of(given: Any) -> pd.DataFrame:
    """Rows as a frame: a frame itself, one row as a dict or Series, rows as a list of dicts, or a dict of columns.

    Raises:
        ValueError: If it is anything else.
    """
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, pd.Series):
        return given.to_frame().T
    if isinstance(given, Mapping):
        columns = given and all(
            isinstance(values, list | np.ndarray | pd.Series | pd.Index) for values in given.values()
        )
        given = {**given} if columns else [{**given}]
    elif not (isinstance(given, list | tuple) and given and all(isinstance(row, Mapping) for row in given)):
        way = ".to_pandas()" if hasattr(given, "to_pandas") else "pd.DataFrame(...)"
        raise ValueError(
            f"the frame is {type(given).__name__}, expected a pandas DataFrame, or a row as a dict or Series: {way}"
        )
    try:
        # Of rows each value keeps its own type: an id beside a missing one would become a float.
        return pd.DataFrame(given, dtype=object if isinstance(given, list | tuple) else None)
    except ValueError as error:
        raise ValueError(f"the frame's columns do not fit together, expected one length ({error})") from error


def names_of(what: str, given: Any) -> list[str]:
    """Names of columns as a list, from any sequence of them.

    Raises:
        ValueError: If it is one name alone, has no order, or holds anything but text.
    """
    if isinstance(given, str):
        raise ValueError(f"{what} is {given!r}, expected a list of names such as [{given!r}]")
    if isinstance(given, set | frozenset) or not hasattr(given, "__iter__"):
        raise ValueError(f"{what} is {type(given).__name__}, expected a list of names, in order")
    names = list(given)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"column {_short(name)} has no text as its name, expected text: frame.columns.astype(str)"
            )
    return [str(name) for name in names]


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least so much; raises ValueError for anything else."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} is {_short(value)}, expected a whole number of {least} or more")
    return number


def real(name: str, value: Any, *, positive: bool = True) -> float:
    """A finite number above 0, or from 0 on; also as text, as YAML reads 1e-3. Raises ValueError for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and (number > 0 or (number == 0 and not positive))):
        raise ValueError(
            f"{name} is {_short(value)}, expected a {'positive ' if positive else ''}number"
            + ("" if positive else " of 0 or more")
        )
    return number


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise ValueError unless the frame has each of these columns once."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the frame has no column {', '.join(map(repr, missing))}, expected it beside {list(frame.columns)[:5]}: "
            "add it, or correct its name"
        )
    twice = [name for name in names if isinstance(frame[name], pd.DataFrame)]
    if twice:
        raise ValueError(
            f"the frame has column {twice[0]!r} more than once, expected once: rename or drop the others"
        )


def kind_of(column: pd.Series[Any]) -> str:
    """What a column holds: "numbers" (booleans too), "text" (categories too), "lists", or pandas' word for another."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "text"
    arrow = str(dtype.pyarrow_dtype) if isinstance(dtype, pd.ArrowDtype) else ""
    if arrow.startswith("dictionary"):
        return "text"
    if arrow.startswith(("list", "large_list", "fixed_size_list")):
        return "lists"
    if pd.api.types.is_complex_dtype(dtype):
        return "complex"
    if arrow == "null" or pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        return "numbers"
    if not pd.api.types.is_object_dtype(dtype):
        return "text" if pd.api.types.is_string_dtype(dtype) else str(dtype)
    word = str(pd.api.types.infer_dtype(column, skipna=True))
    if word == "mixed":
        present = column[column.map(pd.api.types.is_list_like) | column.notna()]
        if present.map(lambda cell: isinstance(cell, list | tuple | set | np.ndarray)).all():
            return "lists"
    return "numbers" if word in _NUMBERS else "text" if word in _TEXT else word


def numbers_of(column: pd.Series[Any]) -> Floats | None:
    """A column of numbers or booleans as (N,), NaN where missing; None if it holds anything else.

    Raises:
        ValueError: If a number is infinite.
    """
    if kind_of(column) != "numbers":
        return None
    values: Floats = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError(
            f"column {column.name!r} holds infinity, expected finite numbers: clean the data first"
        )
    return values


def moments(what: str, values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of the values (N,) that are not NaN; 0 and 0 of none, deviation 0 of a constant.

    Raises:
        ValueError: If they are too large or too close to 0 for float32, in which the network reads them.
    """
    present = values[~np.isnan(values)]
    if not len(present):
        return 0.0, 0.0
    low, high = float(present.min()), float(present.max())
    if max(-low, high) > LARGEST or 0 < high - low < 1 / LARGEST:
        raise ValueError(
            f"{what} holds {low:g} to {high:g}, expected numbers that float32 tells apart: take another unit, or clip"
        )
    # By the range: the deviation of a constant is not 0 when its mean was rounded.
    mean, scale = float(present.mean()), float(present.std()) if low < high else 0.0
    inner_low, inner_high = np.quantile(present, (0.05, 0.95)) if scale else (0.0, 0.0)
    if 0 < inner_high - inner_low < 1e-4 * scale:
        warn(
            f"{what} spans {low:g} to {high:g}, but nine in ten of its values only {inner_low:g} to {inner_high:g}: "
            "they are hardly told apart; clip the others, or make them missing"
        )
    return mean, scale


def codes_of(column: pd.Series[Any]) -> tuple[NDArray[np.intp], list[str]]:
    """A code of each row's value (N,), -1 where missing, and the text of each code; no value becomes a float.

    The text of a whole number has no point, whatever its type.
    """
    codes, values = pd.factorize(column)
    found = np.asarray(values)
    if found.dtype.kind == "f" and (np.abs(found) >= 2**53).any():
        warn(f"column {column.name!r} holds ids as floats, which run together from 2^53 on: read it as Int64")
    return codes, [_text(value) for value in found]


def check_text(name: str, texts: Sequence[str]) -> None:
    """Warn where text is likely a mistake: numbers that came as text, values that differ in blanks alone."""
    numbers = [text for text in texts if not isinstance(_folded(text), str)]
    others = [text for text in texts if isinstance(_folded(text), str)]
    polluted = bool(others) or any("," in text for text in numbers) or len(numbers) > 10
    if (
        polluted
        and 3 <= len(numbers) >= len(texts) / 2
        and not any(_CODE.match(text.strip()) for text in numbers)
    ):
        told = others or [text for text in numbers if "," in text] or numbers
        warn(
            f"column {name!r} is text, but {len(numbers)} of its {len(texts)} values read as numbers (it holds "
            f"{told[0]!r}): each is a category of its own; pd.to_numeric(frame[{name!r}], errors='coerce') makes it "
            "numbers, .astype('category') says that it is meant"
        )
    by_stripped: dict[str, str] = {}
    for text in texts:
        other = by_stripped.setdefault(text.strip(), text)
        if other != text:
            warn(f"column {name!r} holds {other!r} and {text!r}, which differ in blanks alone: strip them")
            return


def check_seen(name: str, texts: Sequence[str], known: Mapping[str, Any], num_rows: int) -> None:
    """Warn where new values look like those of training written otherwise, or none of them is known."""
    unseen = [text for text in texts if text not in known]
    if not unseen:
        return
    by_folded = {_folded(value): value for value in known}
    for text in unseen:
        if _folded(text) in by_folded:
            warn(
                f"column {name!r} holds {text!r} where training had {by_folded[_folded(text)]!r}: it counts as unseen; "
                "write values as in training"
            )
            return
    if len(unseen) == len(texts) and num_rows > 1:
        warn(f"column {name!r}: none of its values was seen in training, such as {unseen[0]!r}")


def _folded(text: str) -> float | str:
    """A text without what files change: blanks, upper case, the form of a number; whole numbers stay exact."""
    plain = text.strip().casefold()
    digits = plain.strip("%$€£ ").replace(",", "").replace(" ", "")
    try:
        return int(digits)
    except ValueError:
        pass
    try:
        return float(digits) if math.isfinite(float(digits)) else plain
    except ValueError:
        return plain


def _text(value: Any) -> str:
    whole_number = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole_number else str(value)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) < 80 else f"{text[:77]}..."
