"""Tell what a file is by its first bytes; names lie (a plain NIfTI called .nii.gz, a text pointer called .nii.gz)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attentus.errors import BadFile
from attentus.io.gz import DAMAGE, unpacking

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

HEAD_BYTES = 512

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl.gz", ".gipl")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
READABLE_ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)
"""File names that are taken for images when a folder is searched; a single file is judged by its content."""

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"BM": "bmp",
    b"NRRD": "nrrd",
    b"version https://git-lfs": "lfs-pointer",
}


def sniff(path: str | PathLike[str]) -> tuple[str, bool]:
    """What a file holds and whether it is gzipped, from its content.

    Returns:
        One of "nifti", "nrrd", "mha", "gipl", "dicom", "png", "jpeg", "tiff", "bmp", and True when compressed.

    Raises:
        BadFile: missing, a folder, empty, a Git LFS pointer, truncated within its first bytes, or of no known kind.
    """
    path = Path(path)
    head, compressed = _head(path)
    if not head:
        raise BadFile(path, "the file is empty (0 bytes)", "Copy or download it again; the transfer did not finish.")
    kind = _kind(head)
    if kind == "lfs-pointer":
        raise BadFile(
            path, "is a Git LFS pointer, a short text in place of the image", "Run `git lfs pull` where it came from."
        )
    if kind is None:
        raise BadFile(
            path,
            "is no image format Attentus reads",
            "It reads NIfTI, NRRD, MHA, GIPL, DICOM series, PNG, JPEG, TIFF and BMP; convert the file to one of these.",
        )
    return kind, compressed


def ending(path: str | PathLike[str]) -> str:
    """The known ending of a file name (".nii.gz", ".png", ...), or its last suffix, in lower case."""
    name = Path(path).name.lower()
    return next((e for e in READABLE_ENDINGS if name.endswith(e)), Path(name).suffix)


def stem(path: str | PathLike[str]) -> str:
    """The file name without its ending: "liver_0" for "liver_0.nii.gz"."""
    name = Path(path).name
    return name[: len(name) - len(ending(path))] if ending(path) else name


def _head(path: Path) -> tuple[bytes, bool]:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if head[:2] != b"\x1f\x8b":
            return head, False
        with unpacking(path) as file:
            return file.read(HEAD_BYTES), True
    except FileNotFoundError:
        raise BadFile(path, "does not exist", "Check the path and its spelling.") from None
    except IsADirectoryError:
        raise BadFile(path, "is a folder where a file is expected", "Name a file in it.") from None
    except DAMAGE:
        raise broken_gzip(path) from None
    except OSError as error:
        raise BadFile(path, f"cannot be opened ({error.strerror})", "Check its permissions and the disk.") from error


def broken_gzip(path: str | PathLike[str]) -> BadFile:
    """The error for a compressed file that ends early or does not unpack."""
    return BadFile(
        path,
        "the compressed data end too early or are damaged",
        "Copy or download the file again; what is here is incomplete.",
    )


def _kind(head: bytes) -> str | None:
    starts = (kind for start, kind in _STARTS.items() if head.startswith(start))
    inside = (kind for kind, found in _INSIDE.items() if found(head))
    return next(starts, None) or next(inside, None)


_INSIDE: dict[str, Callable[[bytes], bool]] = {
    "dicom": lambda head: head[128:132] == b"DICM" or (head[:2] == b"\x08\x00" and head[4:6].isalpha()),
    "nifti": lambda head: 348 in _int32(head) or 540 in _int32(head),  # the header's own size opens the file
    "mha": lambda head: b"ObjectType" in head[:200] or b"NDims" in head[:200],
    "gipl": lambda head: head[252:256] in (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8", b"\x71\x9e\xe9\xe1"),
}


def _int32(head: bytes) -> tuple[int, int]:
    return int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")
