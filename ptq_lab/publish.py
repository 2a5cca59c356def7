"""A finished model as a file: plain ONNX, or an entropy-coded container; measured while it is still a draft."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ptq_lab.config import QuantConfig
from ptq_lab.container import pack_model
from ptq_lab.errors import OutputError
from ptq_lab.graph import Model, save_model
from ptq_lab.output import Output, place_output
from ptq_lab.progress import Progress, silent
from ptq_lab.report.text import format_bytes

PLAIN, CODED = ".onnx", ".ptqz"


@dataclass(frozen=True, slots=True)
class Draft:
    """A model that is finished and not in its place yet.

    Attributes
    ----------
    model : Model
        In a plain file, ready to run.
    name : str
        Of the file that is published.
    files : tuple of Path
        What is published: the plain file and its external data, or the container that holds the same model.
    stored : mapping of str to int
        Bytes that weights take in a container, by name.
    """

    model: Model
    name: str
    files: tuple[Path, ...]
    stored: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_container(self) -> bool:
        """Whether a container is published instead of the plain file."""
        return self.files != self.model.files

    @property
    def size(self) -> int:
        """Bytes of what is published."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def note(self) -> str:
        """What to say of a container in a report; nothing of a plain file."""
        if not self.is_container:
            return ""
        sizes = f"{format_bytes(self.size)}, as a plain file {format_bytes(self.model.size)}"
        return f"an entropy-coded container ({sizes}): ptq_lab.load_session opens it, ptq-lab unpack makes it plain"

    def digest(self) -> str:
        """Return the SHA-256 of what is published, as hex."""
        file = Model(self.model.ir_model, self.name, self.files[0]) if self.is_container else self.model
        return file.digest()


def suffix_of(config: QuantConfig) -> str:
    """Return how the name of the file ends that a configuration writes."""
    return CODED if config.lab.coded else PLAIN


def place_result(path: str | os.PathLike[str] | None, original: Model, config: QuantConfig) -> Output:
    """Find the place for a result; its suffix says whether it is a plain file or a container.

    Raises
    ------
    OutputError
        As :func:`~ptq_lab.output.place_output`, or if the suffix promises something else than the configuration.
    """
    wanted = suffix_of(config)
    other = PLAIN if config.lab.coded else CODED
    place = place_output(path, original, suffix=wanted)
    if place.path.suffix.lower() == other:
        now = "entropy" if config.lab.coded else "packed"
        better = place.path.with_suffix(wanted).name
        message = f"[ptq_lab] encode={now} writes {wanted} files; name it {better}, or change encode"
        raise OutputError(f"{place.path}: {message}", path=place.path)
    return place


@contextmanager
def draft_result(
    place: Output, model: Model, config: QuantConfig, *, external: bool = False, progress: Progress = silent
) -> Iterator[Draft]:
    """Write a finished model beside its place, and publish it when the block ends without an error.

    With `external` the weights of a plain file lie beside it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if not config.lab.coded:
        with place.draft(model, external=external) as plain:
            yield Draft(plain, place.path.name, plain.files)
        return
    with place.draft_file() as file, tempfile.TemporaryDirectory(prefix="ptq_lab-") as folder:
        stored = pack_model(model, file, progress=progress)
        plain = save_model(model, Path(folder) / f"{place.path.stem}{PLAIN}", external=external)
        yield Draft(plain, place.path.name, (file,), stored)


def published(place: Output, draft: Draft) -> Model:
    """Return the model of a draft that has been published: as its plain file, or in memory if that is a container."""
    return Model(draft.model.ir_model, draft.name) if draft.is_container else place.found(draft.model)


def file_bytes(model: Model, config: QuantConfig) -> int:
    """Return how large the file of a finished model is."""
    if not config.lab.coded:
        return len(model.serialize())
    with tempfile.TemporaryDirectory(prefix="ptq_lab-") as folder:
        pack_model(model, Path(folder) / f"model{CODED}")
        return (Path(folder) / f"model{CODED}").stat().st_size
