"""What of a Git repository's folder is its state. The rest says when something was done and on
which disk, and differs between two runs of the same episode."""

from __future__ import annotations

import struct
from pathlib import PurePath

_HEAD = struct.Struct(">4sII")  # "DIRC", version, number of entries
_STAT = 24  # bytes: two times, device and inode
_FIXED = 62  # bytes of an entry before its path
_EXTENDED = 0x4000  # two more bytes of flags follow


def is_journal(path: PurePath) -> bool:
    """Whether a file is a reflog: what it says of the state, the refs say too."""
    return ".git" in path.parts and "logs" in path.parts[path.parts.index(".git") :]


def staged(index: bytes) -> bytes:
    """What an index (version 2 or 3) stages: modes, hashes and paths, without what it remembers of
    the files on this disk. Anything else is returned as it is."""
    if len(index) < _HEAD.size:
        return index
    magic, version, count = _HEAD.unpack_from(index)
    if magic != b"DIRC" or version not in (2, 3):
        return index
    entries, at = [], _HEAD.size
    for _ in range(count):
        if at + _FIXED > len(index):
            return index
        (flags,) = struct.unpack_from(">H", index, at + _FIXED - 2)
        begin = at + _FIXED + (2 if flags & _EXTENDED else 0)
        end = index.find(b"\0", begin)
        if end < 0:
            return index
        mode, name = index[at + _STAT : at + _STAT + 4], index[at + 40 : at + 60]
        # The rest of the flags is the stage of a merge, and the path's length.
        entries.append(mode + name + index[at + 60 : begin] + index[begin:end])
        at += (end - at + 8) // 8 * 8  # one to eight zeros end an entry
    return b"\0".join(entries)
