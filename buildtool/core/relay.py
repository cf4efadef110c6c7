# SPDX-License-Identifier: Apache-2.0
"""Pass a program's stderr on to this process's stderr, and keep its last bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
import threading
import tty

KEPT_BYTES = 256 * 1024
_END_SECONDS = 2  # for a grandchild that keeps stderr open after the program's end
_STDERR = 2


class Relay:
    """
    The stderr of a program: *writing* is its descriptor, and *kept* its last KEPT_BYTES.

    If this process's stderr is a terminal, the program gets a terminal of the same size, and shows its
    progress as it would there.
    """

    def __init__(self) -> None:
        """Open the pipe or terminal. Raises: OSError."""
        self.kept = bytearray()
        self._is_terminal = os.isatty(_STDERR)
        try:
            self._reading, self.writing = os.openpty() if self._is_terminal else os.pipe()
        except OSError:  # a container without /dev/pts has plain progress
            self._is_terminal = False
            self._reading, self.writing = os.pipe()
        if self._is_terminal:
            tty.setraw(self.writing)  # the real terminal converts line feeds
            self._copy_size()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def start(self) -> None:
        """Close the program's end, which the program has by now, and pass its output on."""
        os.close(self.writing)
        self._thread.start()

    def finish(self) -> bytes:
        """Pass the rest on after the program's end, and return the last bytes."""
        self._thread.join(_END_SECONDS)
        return bytes(self.kept)

    def abandon(self) -> None:
        """Close both ends, because the program did not start."""
        for descriptor in (self.writing, self._reading):
            os.close(descriptor)

    def _pass_on(self) -> None:
        try:
            while chunk := self._read():
                self.kept += chunk
                del self.kept[:-KEPT_BYTES]
                _write(chunk)
        finally:
            os.close(self._reading)

    def _read(self) -> bytes:
        """Return the next bytes, or none at the end."""
        try:
            chunk = os.read(self._reading, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # no program has the terminal open any more
                return b""
            raise
        if self._is_terminal:
            self._copy_size()
        return chunk

    def _copy_size(self) -> None:
        """Give the program's terminal the size of the real one, which may change."""
        try:
            size = fcntl.ioctl(_STDERR, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(self._reading, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # the terminal was closed; the output is lost, and the build goes on


def _write(chunk: bytes) -> None:
    """Write *chunk* to stderr. Lost messages on stderr are acceptable."""
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(_STDERR, view) :]
        except BlockingIOError:
            select.select([], [_STDERR], [])
        except OSError:
            return
