"""A stream that is pulled, piece by piece, and knows where it is."""

from __future__ import annotations

from collections.abc import Generator

from autokmod.errors import FormatError

Chunks = Generator[bytes, None, int]  # returns the offset, in the file, of the first byte behind the stream


class Reader:
    """`limit`: how many bytes may come out, in all. Everything here may raise FormatError."""

    def __init__(self, chunks: Chunks, path: str, offset: int, limit: int) -> None:
        self._chunks, self._path, self._offset, self._limit = chunks, path, offset, limit
        self._chunk, self._used = b"", 0
        self._before = 0  # bytes of the chunks before this one
        self.end: int | None = None  # once the stream has ended

    @property
    def at(self) -> int:
        return self._before + self._used

    def fail(self, what: str) -> FormatError:
        return FormatError(self._path, f"{what}, at byte {self.at} of what is unpacked there", self._offset)

    def take(self, size: int) -> bytes:
        if size <= len(self._chunk) - self._used:
            self._used += size
            return self._chunk[self._used - size : self._used]
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> None:
        while size > 0:
            if self._used == len(self._chunk) and not self._fill():
                raise self._truncated(size)
            step = min(size, len(self._chunk) - self._used)
            self._used += step
            size -= step

    def skip_zeros(self) -> bool:
        """Whether anything follows them."""
        while self._used < len(self._chunk) or self._fill():
            rest = len(self._chunk[self._used :].lstrip(b"\0")) if not self._chunk[self._used] else None
            if rest is None:
                return True
            self._used = len(self._chunk) - rest
        return False

    def rest(self) -> bytes:
        """All that is still to come."""
        parts = [self._chunk[self._used :]]
        while self._fill():
            parts.append(self._chunk)
        self._used = len(self._chunk)
        return b"".join(parts)

    def finish(self) -> int:
        """Where it ends. Whatever is still to come was not asked for."""
        while self._fill():
            pass
        assert self.end is not None
        return self.end

    def _truncated(self, size: int) -> FormatError:
        return self.fail(f"it is truncated: {size} bytes are missing")

    def _pieces(self, size: int) -> Generator[bytes, None, None]:
        while size > 0:
            if self._used == len(self._chunk) and not self._fill():
                raise self._truncated(size)
            piece = self._chunk[self._used : self._used + size]
            self._used += len(piece)
            size -= len(piece)
            yield piece

    def _fill(self) -> bool:
        """The next chunk that is not empty."""
        while self.end is None:
            self._before, self._used, self._chunk = self._before + len(self._chunk), 0, b""
            try:
                self._chunk = next(self._chunks)
            except StopIteration as stop:
                self.end = stop.value
                return False
            if self._before + len(self._chunk) > self._limit:
                raise FormatError(self._path, f"it unpacks to more than {self._limit} bytes", self._offset)
            if self._chunk:
                return True
        return False
