"""Download one file. What has come stays in FILE.part, and is continued where it ended if the server still has it."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from attentus.data.fetch.space import require_space
from attentus.errors import BadFile
from attentus.io.atomic import unwritable, write_text
from attentus.progress import Progress, Silent

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.progress import Task

CHUNK = 1 << 20
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""
PAUSES = (1.0, 4.0, 15.0, 60.0)
"""Seconds before each new attempt; one that brought anything starts the count again."""

_BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException, urllib.error.URLError)


def download(
    url: str,
    file: Path,
    *,
    md5: str | None = None,
    progress: Progress | None = None,
    pauses: tuple[float, ...] = PAUSES,
) -> Path:
    """Get a file from a server, whole and unchanged, or raise.

    Args:
        url: http or https.
        file: where it shall be; one that is there already is only checked.
        md5: its sum, hexadecimal; None where nobody publishes one.
        progress: shows megabytes.
        pauses: see `PAUSES`.

    Returns:
        The file.

    Raises:
        BadFile: the address is wrong, the server refuses or keeps breaking off, the disk is full, or the sum is wrong.
    """
    shown = progress or Silent()
    if not url.startswith(("http://", "https://")):
        raise BadFile(url, "is no http or https address", "Correct the catalogue.")
    if not file.is_file():
        part = file.with_name(f"{file.name}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _fill(url, part, shown, pauses)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _full(part) from error
            raise unwritable(part, error) from error
        if md5 and (found := checksum(part, shown)) != md5:
            part.unlink()
            _mark(part).unlink(missing_ok=True)
            raise _wrong_sum(file, md5, found)
        part.replace(file)
        _mark(part).unlink(missing_ok=True)
    elif md5 and (found := checksum(file, shown)) != md5:
        raise _wrong_sum(file, md5, found)
    return file


def checksum(file: Path, progress: Progress | None = None) -> str:
    """The MD5 of a file, hexadecimal; to find damage, it keeps no enemy out."""
    digest = hashlib.md5(usedforsecurity=False)
    with (
        (progress or Silent()).task(f"checking {file.name} (MB)", _mb(file.stat().st_size)) as task,
        file.open("rb") as f,
    ):
        steps = _Megabytes(task)
        while block := f.read(CHUNK):
            digest.update(block)
            steps.add(len(block))
    return digest.hexdigest()


def _fill(url: str, part: Path, shown: Progress, pauses: tuple[float, ...]) -> None:
    """Attempts until the file is complete, or none brings anything any more."""
    failed = 0
    while True:
        before = _size(part)
        try:
            if _attempt(url, part, shown):
                return
            reason = "the server closed the connection"
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                if str(error.headers.get("Content-Range", "")).endswith(f"/{before}"):
                    return  # it was complete already
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise _refused(url, error) from None
            reason = f"HTTP {error.code}"
        except _BROKEN as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failed = 0 if _size(part) > before else failed + 1
        if failed > len(pauses):
            raise BadFile(
                url,
                f"cannot be downloaded ({reason})",
                f"Check the connection and run the command again; it goes on after {_mb(_size(part))} MB.",
            )
        shown.say(f"{part.name}: {reason}; {_mb(_size(part))} MB are here, trying again")
        time.sleep(pauses[max(failed - 1, 0)] if pauses else 0)


def _attempt(url: str, part: Path, shown: Progress) -> bool:
    """Ask for what is missing and append it; whether the file is complete now."""
    here = _size(part)
    headers = {"User-Agent": "attentus"}
    version = _version(part)
    if here and version:
        headers |= {"Range": f"bytes={here}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        continued = answer.status == http.client.PARTIAL_CONTENT
        here = here if continued else 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length else None
        if total is not None:
            require_space(part, total - here)
        write_text(_mark(part), json.dumps({"version": _tag(answer.headers)}))
        shows = shown.task(f"downloading {part.stem} (MB)", _mb(total or 0), _mb(here))
        with part.open("ab" if continued else "wb") as stream, shows as task:
            steps = _Megabytes(task)
            while block := answer.read(CHUNK):
                stream.write(block)
                steps.add(len(block))
    return total is None or _size(part) == total


class _Megabytes:
    """Tells a task about bytes in whole megabytes."""

    def __init__(self, task: Task) -> None:
        self.task, self.rest = task, 0

    def add(self, count: int) -> None:
        whole, self.rest = divmod(self.rest + count, 10**6)
        if whole:
            self.task.advance(whole)


def _tag(headers: Any) -> str:
    """What tells one version of the file from the next; a weak tag does not."""
    tag = str(headers.get("ETag") or "")
    return tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified") or "")


def _version(part: Path) -> str:
    try:
        return str(json.loads(_mark(part).read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _mb(count: int) -> int:
    return count // 10**6


def _refused(url: str, error: urllib.error.HTTPError) -> BadFile:
    what = {404: "is not there (HTTP 404)", 403: "may not be read (HTTP 403)", 410: "is gone (HTTP 410)"}
    return BadFile(
        url,
        what.get(error.code, f"is refused by the server (HTTP {error.code})"),
        "See whether the home page names a new address; a newer Attentus may know it.",
    )


def _wrong_sum(file: Path, wanted: str, found: str) -> BadFile:
    return BadFile(
        file,
        f"has the MD5 sum {found} where {wanted} is published: the transfer went wrong, or the file was changed",
        "Download it again (remove the file if it is still there); if the sum stays wrong, ask the publisher.",
    )


def _full(part: Path) -> BadFile:
    return BadFile(
        part,
        "the disk is full; what has come is kept",
        "Free some space and run the command again; it goes on from here.",
    )
