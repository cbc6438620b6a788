"""Names of archive members -> keys, for archives that anyone may have made.

Nothing is ever written under such a name by a conversion, but keys become paths when shards are exported.
"""

from tfrecords_tools.format.folder import FolderEntry


def entry(name: bytes, size: int, problem: str, place: int) -> FolderEntry:
    """A member as an entry of a folder. One whose name is no key lies in no directory."""
    key, unusable = to_key(name)
    return FolderEntry(key, size, unusable or problem, place, {} if unusable else None)


def to_key(name: bytes) -> tuple[bytes, str]:
    """A member's name as a key, and why it is none ("" if it is one)."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b"\0" in name:
        return name, "its name holds a zero byte"
    if name.startswith(b"/") or (parts and len(parts[0]) == 2 and parts[0].endswith(b":")):
        return name, "its name is an absolute path"
    if b".." in parts:
        return name, "its name leads out of the archive (..)"
    return b"/".join(parts), "" if parts else "it has no name"
