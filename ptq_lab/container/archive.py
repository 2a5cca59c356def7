"""The outer shell of a container: a ZIP file of which every byte is known or checked.

Any ZIP program can list and extract it. Reading is stricter than the standard: entries follow one another without
gaps, their headers have no freedom, and the archive's comment is a checksum of all that is not a tensor. So a flipped
bit is found wherever it is, no name can lead out of the archive, and nothing can hide in it.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ptq_lab.errors import ModelError, OutputError
from ptq_lab.numerics.fields import MOST_INFLATED

MAGIC = b"PK\x03\x04"

_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest that ZIP can say; equal contents give equal bytes
_UNIX, _MODE = 3, 0o100644 << 16
MANIFEST, SKELETON = "manifest.json", "skeleton.onnx"
_ALLOWED = re.compile(r"manifest\.json|skeleton\.onnx|tensors/(0|[1-9][0-9]{0,8})")
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCAL_HEADER = 30
_CHECKSUM = 8  # hexadecimal digits of a CRC-32, the comment of the archive
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LARGE = zipfile.ZIP64_LIMIT  # beyond it places stand in extra fields (ZIP64)
_LARGE_COUNT = zipfile.ZIP_FILECOUNT_LIMIT
_ENTRY_LIMIT = 2_000_000_000  # below what would need ZIP64 in an entry's own header
_LEVEL = 9


class ArchiveWriter:
    """Writes entries one after the other, compressed ones last; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path, "w")
        self._zip.comment = bytes(_CHECKSUM)
        self._tail: int | None = None

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        if self._tail is not None:
            with self._path.open("r+b") as stream:
                stream.seek(self._tail)
                tail = stream.read()[: -_END.size - _CHECKSUM]
                stream.seek(-_CHECKSUM, os.SEEK_END)
                stream.write(_checksum(tail))

    def store(self, name: str, data: bytes) -> None:
        """Add an entry that is compressed already."""
        self._add(_described(name, zipfile.ZIP_STORED), data)

    def deflate(self, name: str, data: bytes) -> None:
        """Add an entry and compress it."""
        if self._tail is None:
            self._tail = self._zip.start_dir
        self._add(_described(name, zipfile.ZIP_DEFLATED), data)

    def _add(self, info: zipfile.ZipInfo, data: bytes) -> None:
        if len(data) > _ENTRY_LIMIT:
            message = f"{self._path}: {info.filename} would have {len(data):,} bytes, and {_ENTRY_LIMIT:,} is the limit"
            raise OutputError(message, path=self._path)
        self._zip.writestr(info, data, compresslevel=_LEVEL)


class Archive:
    """A container's entries, to be read one at a time.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ModelError
        If it is no container, or its directory is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.label = path.name
        self.size = path.stat().st_size
        self._lock = threading.Lock()
        self._stream: BinaryIO = path.open("rb")
        try:
            self._entries = self._read_directory()
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    @property
    def names(self) -> frozenset[str]:
        """The names of all entries."""
        return frozenset(self._entries)

    def stored_size(self, name: str) -> int:
        """Return how many bytes an entry takes in the file."""
        return self._entry(name).compress_size

    def read(self, name: str) -> bytes:
        """Return the bytes of an entry that is not compressed, unchecked."""
        info = self._entry(name)
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise self.damaged(f"{name} is compressed, and it has to be stored as it is")
        return self._at(info.header_offset + _header_size(info), info.compress_size)

    def inflate(self, name: str) -> bytes:
        """Return a compressed entry, checked; never more bytes than its header says."""
        info = self._entry(name)
        stored = self._at(info.header_offset + _header_size(info), info.compress_size)
        if info.file_size > MOST_INFLATED * info.compress_size:
            raise self.damaged(f"{name} claims to be {info.file_size} bytes, made of {info.compress_size}")
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflating.decompress(stored, info.file_size + 1)
        except zlib.error as error:
            raise self.damaged(f"{name} is no deflate stream") from error
        if len(data) != info.file_size or not inflating.eof or inflating.unused_data or zlib.crc32(data) != info.CRC:
            raise self.damaged(f"{name} is not what its checksum says")
        return data

    def damaged(self, what: str, *, tensor: str = "") -> ModelError:
        """Return the error that says so."""
        message = f"{self.label}: {what}; the container is damaged or not whole, get another copy"
        return ModelError(message, tensor=tensor)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        if name not in self._entries:
            raise self.damaged(f"{name} is missing")
        return self._entries[name]

    def _at(self, start: int, size: int) -> bytes:
        with self._lock:
            self._stream.seek(start)
            data = self._stream.read(size)
        if len(data) != size:
            raise self.damaged(f"it ends at byte {start + len(data)} of {start + size}")
        return data

    def _read_directory(self) -> dict[str, zipfile.ZipInfo]:
        if self._at(0, min(4, self.size)) != MAGIC:
            raise ModelError(f"{self.label}: is no .ptqz container")
        try:
            with zipfile.ZipFile(self._stream) as found:
                infos, comment, directory = found.infolist(), found.comment, found.start_dir
        except Exception as error:  # zipfile raises many kinds for a damaged directory
            raise self.damaged(f"its directory cannot be read ({error})") from error
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if info.orig_filename in entries:
                raise self.damaged(f"it has two entries named {info.orig_filename!r}")
            if not _ALLOWED.fullmatch(info.orig_filename):
                raise self.damaged(f"it has an entry named {info.orig_filename[:80]!r}, which does not belong there")
            entries[info.orig_filename] = info
        self._check_order(infos, directory)
        self._check_tail(infos, directory, comment)
        return entries

    def _check_order(self, infos: Sequence[zipfile.ZipInfo], directory: int) -> None:
        """Make sure that the entries fill the file up to the directory and have the headers that they should."""
        place = 0
        for info in infos:
            start, place = place, place + _header_size(info) + info.compress_size
            if info.header_offset != start or place > directory or info.compress_type not in _METHODS:
                raise self.damaged(f"the directory does not describe {info.orig_filename} as it should")
            wanted = _described(info.orig_filename, info.compress_type)
            wanted.CRC, wanted.compress_size, wanted.file_size = info.CRC, info.compress_size, info.file_size
            if self._at(start, _header_size(info)) != wanted.FileHeader(zip64=False):
                raise self.damaged(f"the header of {info.orig_filename} is not as it should be")
        if place != directory:
            raise self.damaged(f"bytes {place} to {directory} belong to nothing")

    def _check_tail(self, infos: Sequence[zipfile.ZipInfo], directory: int, comment: bytes) -> None:
        """Make sure that nothing has changed from the first compressed entry on, to the last byte of the file."""
        end = self.size - _END.size - _CHECKSUM
        starts = [info.header_offset for info in infos if info.compress_type == zipfile.ZIP_DEFLATED]
        tail = self._at(min(starts), end - min(starts)) if starts and end > min(starts) else b""
        if comment != _checksum(tail):
            raise self.damaged(f"the checksum of {MANIFEST}, {SKELETON} and the directory is wrong")
        large = directory > _LARGE or len(infos) > _LARGE_COUNT  # ZIP64, whose consistency zipfile has checked
        wanted = _END.pack(_END_MAGIC, 0, 0, len(infos), len(infos), end - directory, directory, _CHECKSUM)
        if not large and self._at(end, _END.size) != wanted:
            raise self.damaged("the end of its directory is not as it should be")


def is_container(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file starts like a container; ``False`` if it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _described(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type, info.create_system, info.external_attr = method, _UNIX, _MODE
    return info


def _checksum(tail: bytes) -> bytes:
    return f"{zlib.crc32(tail):08x}".encode()


def _header_size(info: zipfile.ZipInfo) -> int:
    """Return the length of the header before an entry's bytes."""
    return _LOCAL_HEADER + len(info.orig_filename)
