"""What a checkpoint's pickle asks for, read without running any of it. Needs no torch.

torch's own weights_only decides when a checkpoint is loaded, in a worker (`checkpoint.py`). This
look comes before, so that a model that would run code is refused before it is taken into a project
or queued.
"""

from __future__ import annotations

import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from napari_backsplit.backend.errors import InputError, UntrustedModelError

MAX_BYTES = 256 * 1024**2
"""Largest pickle that is read: weights are kept beside it, so a real one has some kilobytes."""

_DATA = re.compile(
    r"collections\.(OrderedDict|Counter)"
    r"|torch\._utils\._rebuild_\w+"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.(\w+Storage|\w*Tensor|Size|device|storage\.\w+Storage)"
    r"|torch\.nn\.parameter\.\w+"
    r"|torch\.serialization\._get_layout"
    r"|torch\.(b?float\d*(_\w+)?|double|half|u?int\d*|long|short|bool|complex\d*|q\w+)"
    r"|numpy\.(dtype|_?core\.multiarray\.(scalar|_reconstruct)|ndarray)"
    r"|numpy\.dtypes\.\w+"
    r"|_codecs\.encode"
    r"|(builtins|__builtin__)\.(set|bytearray|complex)"
)
_CODE = frozenset({"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"})
"""Opcodes by which a pickle names a class in other ways; torch.save writes none of them."""

_DAMAGED = (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, OSError,
            zlib.error, lzma.LZMAError)  # fmt: skip

_REMEDY = "A checkpoint is loaded as data only; ask its maker for one without it."


def check_pickle(path: Path, inner: str) -> None:
    """Refuse a checkpoint whose pickle names anything but numbers and arrays.

    Parameters
    ----------
    path : Path
        A whole checkpoint, as torch.save writes it.
    inner : str
        Name of the pickle in it.

    Raises
    ------
    InputError
        The pickle is damaged, or too large to be one.
    UntrustedModelError
        Loading it would have to run code; the error names what it asks for.
    """
    for name in _names(path, read_pickle(path, inner)):
        if not _DATA.fullmatch(name):
            raise UntrustedModelError(
                f"{path.name} asks for {name[:80]}, so it was not loaded.", _REMEDY
            )


def read_pickle(path: Path, inner: str) -> bytes:
    """Return the bytes of a checkpoint's pickle.

    Raises
    ------
    InputError
        It is damaged, or too large to be one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(inner).file_size
            if size > MAX_BYTES:
                raise InputError(
                    f"{path.name} holds {size / 1e6:.0f} MB where a checkpoint has its names.",
                    "Do not use this file.",
                )
            return archive.read(inner)
    except _DAMAGED as error:
        raise InputError(f"{path.name} is damaged.", "Copy it again.") from error


def _names(path: Path, content: bytes) -> Iterator[str]:
    """Yield what a pickle names, as module.name."""
    try:
        for opcode, value, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL":
                yield str(value).replace(" ", ".", 1)
            elif opcode.name in _CODE:
                yield f"a class by {opcode.name}"
    except ValueError as error:
        raise InputError(f"{path.name} is damaged.", "Copy it again.") from error
