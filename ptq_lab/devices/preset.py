"""What a preset pins down."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptq_lab.graph.flow import Flow
from ptq_lab.graph.qdq import Form
from ptq_lab.int8 import Int8Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """An option that a device does not leave to the user.

    Attributes
    ----------
    option : str
        Its name, e.g. ``bias_correction``.
    value : bool
        What it is set to.
    reason : str
        Why, as a sentence.
    """

    option: str
    value: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The rules of one device.

    Attributes
    ----------
    name : str
        The value of ``target_device``.
    toolchain : str
        What the written file is for, as a sentence.
    source : str
        Where the rules come from, and how they differ from the original's.
    flow : Flow
        Which operators compute in integers, and the reason for each kind of layer left out.
    left_float : tuple of (str, str)
        Operators without weights that stay float on purpose, each with its reason; for documents and tables.
    signed : bool
        Activations are int8, otherwise uint8.
    symmetric : bool
        The zero point of every activation is 0 and its codes are -127..127.
    channel_operators : tuple of str
        Layers whose weight may have a scale per output channel.
    symmetric_tensors : bool
        Weights with a single scale have zero point 0. Those with a scale per channel always have.
    form : Form
        How biases and weights are written.
    forced : tuple of Forced
        Options that the device decides.
    optimize : str
        What the converter's ``--optimize`` has to contain; empty if anything goes.
    lookups : bool
        Tables whose rows are looked up are stored as codes and decoded after the lookup.
    fixed_shapes : bool
        Every axis of the inputs needs a size, or profiles of sizes.

    Examples
    --------
    >>> from ptq_lab.devices import PRESETS
    >>> PRESETS["KIRIN"].decide("bias_correction", wanted=True)
    (False, 'MindSpore Lite has no bias correction for Kirin, so it is switched off')
    """

    name: str
    toolchain: str
    source: str
    flow: Flow = field(default_factory=Flow)
    left_float: tuple[tuple[str, str], ...] = ()
    signed: bool = False
    symmetric: bool = False
    channel_operators: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    symmetric_tensors: bool = True
    form: Form = field(default_factory=Form)
    forced: tuple[Forced, ...] = ()
    optimize: str = ""
    lookups: bool = False
    fixed_shapes: bool = False

    @property
    def dtype(self) -> str:
        """Element type of activation codes."""
        return "int8" if self.signed else "uint8"

    def settings(self, *, method: str, per_channel: bool) -> Int8Settings:
        """Return the settings of an integer plan for this device.

        Parameters
        ----------
        method : str
            Range method of activations.
        per_channel : bool
            Scales per output channel where the device has them.
        """
        return Int8Settings(
            method=method,
            per_channel=per_channel,
            signed=self.signed,
            symmetric=self.symmetric,
            channel_operators=self.channel_operators,
            symmetric_tensors=self.symmetric_tensors,
            narrow=self.form.shield,
        )

    def decide(self, option: str, *, wanted: bool) -> tuple[bool, str]:
        """Return the value of a switch on this device, and the reason when it is not the one wanted."""
        for forced in self.forced:
            if forced.option == option and forced.value != wanted:
                return forced.value, forced.reason
        return wanted, ""
