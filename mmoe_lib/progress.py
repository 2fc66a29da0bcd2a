"""Progress bars: as text on a terminal or in a notebook, silent when asked or when TQDM_DISABLE=1 is set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(
    items: Iterable[Any] | None = None, *, total: int | None = None, label: str, unit: str, show: bool = True
) -> Any:
    """A tqdm bar over items, or over a total that the caller counts up.

    Args:
        items: What to iterate over.
        total: How many there will be, when there are no items.
        label: Stands before the bar.
        unit: What is counted.
        show: False draws nothing. True leaves the decision to the environment variable TQDM_DISABLE.
    """
    # tqdm reads TQDM_DISABLE only when `disable` is not given.
    silent: Any = {} if show else {"disable": True}
    return tqdm(items, total=total, desc=label, unit=unit, **silent)
