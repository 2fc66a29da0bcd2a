"""Files are whole or not there, and theirs who may read them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from mmoe_lib.files import versions, write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from mmoe_lib.files import write_whole
os.umask(int(sys.argv[2]))
write_whole(Path(sys.argv[1]), b"new")
"""
    for umask, expected in ((0o077, 0o600), (0o002, 0o664)):
        path = tmp_path / str(umask)
        # Another process, because the umask belongs to the whole of one.
        subprocess.run(
            [sys.executable, "-c", code, str(path), str(umask)], check=True, cwd=Path(__file__).parents[1]
        )
        assert mode(path) == expected
        for kept in (0o600, 0o640, 0o444):
            path.chmod(kept)
            write_whole(path, b"newer")
            assert mode(path) == kept
            assert path.read_bytes() == b"newer"
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, (0o077, 0o002)))


def test_a_link_still_points_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_versions_name_the_writers() -> None:
    assert versions().keys() == {"python", "torch", "mmoe_lib"}
    assert versions()["python"] == sys.version.split()[0].rstrip("+")
