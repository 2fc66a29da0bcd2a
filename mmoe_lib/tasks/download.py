"""Find the files of a data set on this machine, or fetch them from several addresses in turn, checked by their sums.

Two things make fetching more than one call of pooch. The same text is offered in different wrappings (plain, .gz,
inside an archive), so the sum is taken over the uncompressed text. And a machine without a network must find
out in seconds: name resolution and silent servers can hang for minutes, so each download runs in a thread that
is given up when no byte has arrived for a while.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit

Source = Mapping[str, str]
"""One place that offers a set: the address of every file. Files in one archive share its address."""

ANSWER_WITHIN = 5.0
"""Seconds without a byte after which an address is given up."""

ALL_WITHIN = 20.0
"""Seconds that one call of `fetch` may spend waiting for bytes, over all addresses and files."""

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile)
"""What reading a cut or damaged .gz, .tar or .zip raises."""

_BLOCK = 1 << 20
_POLL = 0.02


class DownloadError(OSError):
    """No address gave the file. The message names the addresses, why each failed, and the way by hand."""


class AddressError(Exception):
    """One address failed; `host_is_dead` when trying another file of the same host would be a waste."""

    def __init__(self, reason: str, *, host_is_dead: bool = False) -> None:
        super().__init__(reason)
        self.host_is_dead = host_is_dead


class Patience:
    """The seconds that are left for waiting, shared by all addresses of one call."""

    def __init__(self, each: float, total: float) -> None:
        self.each = each
        self.total = total
        self.left = total

    @property
    def now(self) -> float:
        """How long the next address may be silent."""
        return min(self.each, self.left)


@dataclass(frozen=True)
class OfficialFile:
    """One file as its publisher released it.

    Attributes:
        name: without .gz.
        rows: how many lines it has; 0 where that is not published.
        sha256: of the uncompressed text; "" where only the sum of an archive is published.
    """

    name: str
    rows: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Release:
    """A published data set: where its files are looked for, and where they are offered.

    Attributes:
        title: for readers.
        folder: the files' own folder, in the cache and in a folder that a user named.
        files: those without which nothing can be done, each with or without .gz behind its name.
        by_hand: how to do without a download, the last part of an error.
        sources: the places that offer them, the preferred one first.
        md5: of what lies behind each address; "" where the files have sums of their own.
        places: where they may lie below a folder that a user named, the preferred one first; "." is the folder itself.
        optional: names of files that are taken when they are there.
        mistaken: files that are often put there instead: by a pattern of names, what they are.
        complete_rows: of the whole set, where it is also given out in part.
    """

    title: str
    folder: str
    files: tuple[OfficialFile, ...]
    by_hand: str
    sources: tuple[Source, ...] = ()
    md5: str = ""
    places: tuple[str, ...] = (".",)
    optional: tuple[str, ...] = ()
    mistaken: Mapping[str, str] = field(default_factory=dict)
    complete_rows: int = 0

    def cache_folder(self, cache: str | os.PathLike[str] | None = None) -> Path:
        """The folder of the set in the cache, `default_cache()` when None."""
        return (default_cache() if cache is None else Path(cache)) / self.folder

    def find(
        self, path: str | os.PathLike[str] | None = None, *, cache: str | os.PathLike[str] | None = None
    ) -> dict[str, Path] | None:
        """Find the files on this machine, without a network: in `path`, in MMOE_DATA, in the cache.

        Args:
            path: a folder that holds them or one of their places. When given, nothing else is tried.
            cache: the folder of downloads, `default_cache()` when None.

        Returns:
            By name, all that are needed and those of the optional ones that are there; None when they are in none of
            these places. In the cache a part of the needed files counts as none, so that they are fetched anew.

        Raises:
            FileNotFoundError: `path` or MMOE_DATA is not a folder, `path` holds no such files, or one of the two
                holds only a part of them.
        """
        if path is not None:
            found = self._in_named_folder(Path(path), "path")
            if found is None:
                below = " and ".join(place for place in self.places if place != ".")
                raise FileNotFoundError(
                    f"no {self.files[0].name}(.gz) in {path} or below it in {below}{self._mistaken_in(Path(path))}: "
                    f"{self.by_hand}"
                )
            return found
        if given := os.environ.get("MMOE_DATA"):
            found = self._in_named_folder(Path(given), "MMOE_DATA")
            if found is not None:
                return found
        found, missing = self._in_place(self.cache_folder(cache))
        return None if missing else found

    def find_or_download(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> dict[str, Path]:
        """Find the files as `find` does, else download them into the cache.

        Raises:
            FileNotFoundError: as `find`.
            DownloadError: no address gave them; without a network this takes at most 20 s.
            OSError: the cache cannot be written.
        """
        found = self.find(path, cache=cache)
        if found is not None:
            return found
        sums = {file.name: file.sha256 for file in self.files} | dict.fromkeys(self.optional, "")
        return fetch(
            sums,
            self.sources,
            self.cache_folder(cache),
            by_hand=self.by_hand,
            md5=self.md5,
            optional=self.optional,
            progress=progress,
        )

    def available(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> bool:
        """Whether the files can be found or downloaded, which is done; when no address gave them, a warning says why.

        Raises:
            OSError: as `find_or_download`, but for DownloadError: a folder that was named but is wrong is a slip of
                the user, which a stand-in would hide.
        """
        try:
            self.find_or_download(path, cache=cache, progress=progress)
        except DownloadError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            return False
        return True

    def _in_place(self, place: Path) -> tuple[dict[str, Path], list[str]]:
        """The files that lie in one folder, by name, and the needed ones that do not."""
        needed = [file.name for file in self.files]
        both = {name: with_or_without_gz(place / name) for name in (*needed, *self.optional)}
        found = {name: path for name, path in both.items() if path is not None}
        return found, [name for name in needed if name not in found]

    def _in_named_folder(self, folder: Path, given_as: str) -> dict[str, Path] | None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{given_as} is {folder}, which is not a folder: {self.by_hand}")
        for place in (folder / name for name in self.places):
            found, missing = self._in_place(place)
            if not missing:
                return found
            if len(missing) < len(self.files):
                raise FileNotFoundError(
                    f"{place} ({given_as}) holds a part of the files, {', '.join(missing)}(.gz) missing: {self.by_hand}"
                )
        return None

    def _mistaken_in(self, folder: Path) -> str:
        for pattern, what in self.mistaken.items():
            for place in self.places:
                for file in sorted((folder / place).glob(pattern)):
                    return f" ({file.name} there is {what})"
        return ""


def default_cache() -> Path:
    """`data/cache` of a checkout; the user's cache folder when the library is installed elsewhere."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "data").is_dir():
        return checkout / "data" / "cache"
    import pooch

    return Path(pooch.os_cache("mmoe_lib"))


def fetch(
    files: Mapping[str, str],
    sources: Sequence[Source],
    folder: Path,
    *,
    by_hand: str,
    md5: str = "",
    optional: Sequence[str] = (),
    answer_within: float = ANSWER_WITHIN,
    all_within: float = ALL_WITHIN,
    progress: bool = True,
) -> dict[str, Path]:
    """Fetch every file of a set into `folder`, each as `<name>.gz`.

    A file that is already there with the right sum is kept. Otherwise the sources are tried in turn, and the
    next one is taken when an address fails or its text has the wrong sum. What lies behind an address may be
    the text, the text as .gz, or a .zip or .tar(.gz) that holds it at any depth. Files appear in `folder`
    only when whole.

    Args:
        files: for each file name the sha256 of its uncompressed text, or "" where `md5` vouches for it.
        sources: the places that offer them, the preferred one first.
        folder: where the files go; made when missing.
        by_hand: how to do without a download, the last part of the error, e.g. "pass path=".
        md5: of what lies behind each address, such as an archive of all files; "" where that is not published.
        optional: the files that may be missing.
        answer_within: seconds without a byte after which an address is given up.
        all_within: seconds of waiting for bytes in the whole call; the time in which data flow does not
            count.
        progress: show a progress bar for each download on standard error.

    Returns:
        For each file name the path of its .gz file, without the optional ones that are not offered.

    Raises:
        DownloadError: a needed file could be had from no address.
        OSError: `folder` cannot be written.
    """
    patience = Patience(answer_within, all_within)
    failures: dict[str, str] = {}  # address: why it is of no use, whichever file is wanted
    dead_hosts: set[str] = set()
    downloaded: dict[str, Path] = {}
    scratch_folder = _scratch_in(folder, by_hand)

    def from_source(name: str, address: str, scratch: Path) -> Path:
        """The checked .gz file in scratch, from this one address."""
        if address not in downloaded:
            host = urlsplit(address).netloc
            if host in dead_hosts:
                raise AddressError("not tried, the host did not answer before")
            if address in failures:
                raise AddressError(failures[address])
            try:
                received = download(address, scratch, patience, progress)
                if md5:
                    _check_md5(received, md5)
                downloaded[address] = received
            except AddressError as error:
                failures[address] = str(error)
                if error.host_is_dead:
                    dead_hosts.add(host)
                raise
        return _checked(_unpack(downloaded[address], name, scratch), files[name], scratch)

    with scratch_folder as scratch_name:
        found: dict[str, Path] = {}
        for name in files:
            target = folder / f"{name}.gz"
            if files[name] and _has_sum(target, files[name]):
                found[name] = target
                continue
            tried: list[str] = []
            for source in sources:
                if name not in source:
                    continue
                try:
                    whole = from_source(name, source[name], Path(scratch_name))
                except AddressError as error:
                    tried.append(f"{source[name]} ({error})")
                else:
                    whole.chmod(0o644)
                    os.replace(whole, target)
                    found[name] = target
                    break
            else:
                if name in optional:
                    continue
                raise DownloadError(
                    f"{name} could not be fetched; tried {', '.join(tried)}; by hand: {by_hand}"
                )
        return found


def _scratch_in(folder: Path, by_hand: str) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix=".download-")
    except OSError as error:
        raise OSError(
            f"cannot write to the cache folder {folder} ({error.strerror}): "
            f"choose a writable one, or {by_hand}"
        ) from error


def _check_md5(archive: Path, expected: str) -> None:
    total = hashlib.md5(usedforsecurity=False)
    with archive.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    if total.hexdigest() != expected:
        raise AddressError(f"the archive has the md5 {total.hexdigest()}, expected {expected}")


def with_or_without_gz(plain: Path) -> Path | None:
    """A file, compressed with .gz behind its name or plain; None when neither is there."""
    for candidate in (plain.with_name(f"{plain.name}.gz"), plain):
        if candidate.is_file():
            return candidate
    return None


def text_sha256(path: Path) -> str:
    """The sha256 of a file's text, uncompressed when it is a .gz (told by its first bytes, not its name)."""
    total = hashlib.sha256()
    with open_text(path) as text:
        while block := text.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def open_text(path: Path) -> IO[bytes]:
    """Open a plain or .gz file for reading its uncompressed bytes."""
    return cast(IO[bytes], gzip.open(path, "rb")) if _is_gzip(path) else path.open("rb")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _has_sum(path: Path, expected: str) -> bool:
    try:
        return path.is_file() and text_sha256(path) == expected
    except DAMAGED:
        return False


def download(address: str, scratch: Path, patience: Patience, progress: bool) -> Path:
    """Download one address into a new file of scratch, or give it up when no byte arrives for long enough."""
    import pooch
    import requests
    from tqdm import tqdm

    limit = patience.now
    if limit <= 0:
        raise AddressError(f"not tried, {patience.total:g} s of waiting were used up")
    handle, name = tempfile.mkstemp(dir=scratch)
    raised: list[Exception] = []

    with (
        os.fdopen(handle, "wb") as file,
        tqdm(  # the delay keeps addresses that fail at once from flashing a bar
            desc=address.rsplit("/", 1)[-1],
            total=1,  # pooch asks the bar for its truth before it sets the size
            unit="B",
            unit_scale=True,
            leave=False,
            delay=0.5,
            disable=not progress,
        ) as bar,
    ):
        # The wait below decides; the time limit of requests ends the thread some time after it was given up.
        downloader = pooch.HTTPDownloader(progressbar=bar if progress else False, timeout=2 * limit)

        def work() -> None:
            try:
                downloader(address, file, None)
            except Exception as error:
                raised.append(error)

        # A daemon thread, because a hanging name resolution can be neither interrupted nor waited for.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        started = silent_since = time.monotonic()
        answered_after, size = 0.0, 0
        while thread.is_alive():
            thread.join(_POLL)
            now = time.monotonic()
            grown = os.fstat(handle).st_size
            if grown > size:
                silent_since = now
                answered_after = answered_after or now - started
                size = grown
            elif now - silent_since >= limit:
                # Leaving the block closes the file, which ends the thread at its next write.
                patience.left -= answered_after + limit
                what = "no answer" if size == 0 else f"silence after {size:,} bytes"
                raise AddressError(f"{what} for {limit:g} s", host_is_dead=True)
        patience.left -= answered_after or time.monotonic() - started

    for error in raised:
        if isinstance(error, requests.HTTPError):
            raise AddressError(f"HTTP {error.response.status_code}") from error
        if size > 0 or isinstance(error, requests.exceptions.ChunkedEncodingError):
            raise AddressError("the download broke off") from error
        if isinstance(error, requests.ConnectionError):
            unknown = "NameResolutionError" in str(error)
            raise AddressError("host unknown" if unknown else "no connection", host_is_dead=True) from error
        raise AddressError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return Path(name)


def _unpack(path: Path, name: str, scratch: Path) -> Path:
    """The file `name` or `name`.gz inside what was downloaded; the download itself when it is no archive."""
    wanted = (name, f"{name}.gz")
    archives = (".zip", ".tar", ".tar.gz", ".tgz")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                member = _choose(zipped.namelist(), wanted, archives)
                with zipped.open(member) as inside:
                    return _unpack(_copy(inside, scratch), name, scratch)
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tarred:
                member = _choose([m.name for m in tarred.getmembers() if m.isfile()], wanted, archives)
                with cast(IO[bytes], tarred.extractfile(member)) as inside:
                    return _unpack(_copy(inside, scratch), name, scratch)
    except DAMAGED as error:
        raise AddressError("the archive is cut short or damaged") from error
    return path


def _choose(members: Sequence[str], wanted: tuple[str, ...], archives: tuple[str, ...]) -> str:
    """The wanted member, else the archive in which it may lie."""
    for endings in (wanted, archives):
        for member in members:
            if member.endswith(endings):
                return member
    raise AddressError(f"the archive holds no {wanted[0]}")


def _copy(inside: IO[bytes], scratch: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=scratch)
    with os.fdopen(handle, "wb") as file:
        shutil.copyfileobj(inside, file, _BLOCK)
    return Path(name)


def _checked(path: Path, expected: str, scratch: Path) -> Path:
    """The same text as a .gz file, when its sum is the expected one or none is."""
    try:
        actual = text_sha256(path)
    except DAMAGED as error:
        raise AddressError("the file is cut short or damaged") from error
    if expected and actual != expected:
        raise AddressError(f"its text has the sha256 {actual[:12]}..., expected {expected[:12]}...")
    if _is_gzip(path):
        return path
    handle, name = tempfile.mkstemp(dir=scratch)
    with (
        path.open("rb") as text,
        os.fdopen(handle, "wb") as file,
        gzip.GzipFile("", "wb", 6, file, 0) as zipped,
    ):
        shutil.copyfileobj(text, zipped, _BLOCK)
    return Path(name)
