"""Running models: the only file that knows onnxruntime."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ptq_lab.errors import InferenceError
from ptq_lab.graph import Model, load_model
from ptq_lab.graph.model import constant, constants
from ptq_lab.graph.slots import open_slots

Feeds = Mapping[str, NDArray[Any]]

CPU = ("CPUExecutionProvider",)
_BFLOAT16 = 16  # ONNX's number of the element type
_QUIET = 3  # onnxruntime's log level: errors only
_SOURCE_PLACE = re.compile(r"Load model from \S+ failed:|/\S*onnxruntime\S*:\d+ [^()]*\([^()]*\)(?: const)? ")


def runtime_version() -> str:
    """Return the version of onnxruntime, whatever the package is called that brought it."""
    return str(onnxruntime.__version__)


def open_session(
    model: Model | Path | bytes, *, providers: Sequence[str] = CPU, threads: int = 1, fuse: bool = True
) -> onnxruntime.InferenceSession:
    """Load a model into onnxruntime with all its graph optimizations.

    Parameters
    ----------
    model : Model, path or bytes
    providers : sequence of str
        onnxruntime execution providers, best first.
    threads : int
        Threads within one operator; 0 leaves the choice to onnxruntime. One costs the least processor time.
    fuse : bool
        Let it put nodes together; without, it folds constants only, and every tensor of the file exists.

    Raises
    ------
    InferenceError
        If a provider is not available here, or onnxruntime refuses the model.
    """
    options = _options(threads)
    if not fuse:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return _open(model, providers, options)


def optimized_model(model: Model | Path | bytes, *, providers: Sequence[str] = CPU) -> Model:
    """Return what onnxruntime makes of a model before it runs it: fused, and with kernels of its own.

    Parameters
    ----------
    model : Model, path or bytes
    providers : sequence of str
        onnxruntime execution providers, best first.

    Returns
    -------
    Model
        To look at; it is bound to this machine and this release of onnxruntime.

    Raises
    ------
    InferenceError
        As :func:`open_session`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = _options(threads=0)
        options.optimized_model_filepath = str(path)
        _open(model, providers, options)
        return Model(load_model(path).ir_model, _source(model)[0])


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(
    model: Model | Path | bytes, providers: Sequence[str], options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    missing = [provider for provider in providers if provider not in available]
    if missing:
        raise InferenceError(
            f"[ptq_lab] providers: {', '.join(missing)} is not available here; available: {', '.join(available)}"
        )
    label, source = _source(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # its exception classes share no base of their own
        raise InferenceError(f"{label}: onnxruntime {onnxruntime.__version__} refuses it ({_reason(error)})") from error


class Sessions:
    """Sessions on one thread each, opened when a model is first asked for; a run that looks twice loads once."""

    def __init__(self, providers: Sequence[str] = CPU) -> None:
        self.providers = providers
        self._open: dict[int, tuple[Model, onnxruntime.InferenceSession]] = {}

    def __call__(self, model: Model) -> onnxruntime.InferenceSession:
        """Return the session of a model.

        Raises
        ------
        InferenceError
            If onnxruntime refuses it.
        """
        if id(model) not in self._open:
            self._open[id(model)] = model, open_session(model, providers=self.providers, threads=1)
        return self._open[id(model)][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChoice:
    """How a caller wants a session.

    Attributes
    ----------
    options : onnxruntime.SessionOptions
    providers : sequence of str
        Or pairs of a name and a mapping, as onnxruntime takes them.
    provider_options : sequence of mappings or None
    """

    options: onnxruntime.SessionOptions
    providers: Sequence[Any]
    provider_options: Sequence[Mapping[str, Any]] | None


def session_options(given: Mapping[str, Any]) -> SessionChoice:
    """Return what a caller's keywords ask for: those of ``InferenceSession``, or attributes of ``SessionOptions``.

    Raises
    ------
    InferenceError
        If there is no such keyword, or its value is of the wrong kind.

    Examples
    --------
    >>> session_options({"intra_op_num_threads": 1}).options.intra_op_num_threads
    1
    """
    named = dict(given)
    providers, more = named.pop("providers", CPU), named.pop("provider_options", None)
    options = named.pop("sess_options", None)
    if options is None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
    known = sorted(name for name in dir(onnxruntime.SessionOptions) if name[0] != "_")
    known = [name for name in known if not callable(getattr(onnxruntime.SessionOptions, name))]
    for name, value in named.items():
        if name not in known:
            message = f"{name}: is no option of a session; there are providers, provider_options, sess_options"
            raise InferenceError(f"{message}, {', '.join(known)}")
        try:
            setattr(options, name, value)
        except TypeError as error:
            raise InferenceError(f"{name}: {value!r} is no value that onnxruntime takes for it") from error
    return SessionChoice(options=options, providers=providers, provider_options=more)


def open_filled(
    source: Path | bytes, weights: Mapping[str, NDArray[Any]], choice: SessionChoice, *, label: str
) -> onnxruntime.InferenceSession:
    """Load a model whose empty initializers are handed in.

    Parameters
    ----------
    source : path or bytes
    weights : mapping of str to ndarray
        By name of the initializer.
    choice : SessionChoice
    label : str
        What to call the model in messages.

    Raises
    ------
    InferenceError
        If a provider is not available here, or onnxruntime refuses the model.
    """
    values = [_handed_in(array) for array in weights.values()]
    if values:
        choice.options.add_external_initializers(list(weights), values)
    model = str(source) if isinstance(source, Path) else source
    try:
        return onnxruntime.InferenceSession(
            model, choice.options, providers=list(choice.providers), provider_options=choice.provider_options
        )
    except Exception as error:  # its exception classes share no base of their own
        raise InferenceError(f"{label}: onnxruntime {onnxruntime.__version__} refuses it ({_reason(error)})") from error


class WeightSlots:
    """A model that runs with some of its weights replaced, without being written again.

    Convolutions want their weights when the model is loaded, to lay them out for their kernels, so each trial loads
    the model again. What has none runs nearly as fast if an input can overrule a weight, and then one session serves
    for all trials.

    Parameters
    ----------
    model : Model
    tensors : sequence of str
        Weights that may be replaced.
    providers : sequence of str
        onnxruntime execution providers.
    """

    def __init__(self, model: Model, tensors: Sequence[str], *, providers: Sequence[str] = CPU) -> None:
        self._providers = providers
        self._weights = _stored(model, tensors)
        as_inputs = all(map(_can_be_fed, self._weights.values()))
        as_inputs &= not any(node.op_type in ("Conv", "ConvTranspose") for node in model.graph)
        self._slots = open_slots(model, tensors, as_inputs=as_inputs)
        self._shared = self._load({}) if as_inputs else None

    def run(self, changes: Mapping[str, NDArray[Any]], samples: Sequence[Feeds]) -> list[dict[str, NDArray[Any]]]:
        """Run every sample with some weights replaced by arrays of the same shape.

        Raises
        ------
        InferenceError
            If onnxruntime fails.
        """
        changed = {name: array.astype(self._weights[name].dtype) for name, array in changes.items()}
        if self._shared is None:
            session, more = self._load(changed), {}
        else:
            session, more = self._shared, self._feeds(changed)
        return [run_session(session, {**feeds, **more}) for feeds in samples]

    def _load(self, changed: Mapping[str, NDArray[Any]]) -> onnxruntime.InferenceSession:
        weights = {name: changed.get(name, self._weights[name]) for name in self._slots.loaded}
        values = {name: _handed_in(array) for name, array in weights.items()}
        options = _options(threads=1)
        options.add_external_initializers(list(values), list(values.values()))
        return _open(self._slots.source, self._providers, options)

    def _feeds(self, changed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        feeds = {name: changed.get(name, self._weights[name]) for name in self._slots.fed}
        for name, switch in self._slots.switches.items():
            feeds[switch.given] = np.array(name in changed)
            feeds[switch.weight] = changed.get(name, self._weights[name])
        return feeds


def _stored(model: Model, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    holders = constants(model.graph)
    tensors = {name: constant(holders[name]) for name in names}
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items() if tensor is not None}


def _can_be_fed(array: NDArray[Any]) -> bool:
    """Tell whether onnxruntime takes an array of this type in a run: it knows numpy's own types only."""
    return np.issubdtype(array.dtype, np.floating)  # bfloat16 is not one of them


def _handed_in(array: NDArray[Any]) -> onnxruntime.OrtValue:
    if _can_be_fed(array) or np.issubdtype(array.dtype, np.integer):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BFLOAT16)


def run_session(session: onnxruntime.InferenceSession, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """Run a model once.

    Returns
    -------
    dict of str to ndarray
        Outputs by name.

    Raises
    ------
    InferenceError
        If onnxruntime fails.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        outputs = session.run(names, dict(feeds))
    except Exception as error:
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
        raise InferenceError(f"running the model on {shapes} failed ({_reason(error)})") from error
    return dict(zip(names, outputs, strict=True))


def require_same(before: Model, after: Model, feeds: Feeds) -> None:
    """Make sure that two float models compute the same, e.g. after a change of opset.

    Raises
    ------
    InferenceError
        If an output differs by more than 1e-4 of its largest value.
    """
    wanted = run_session(open_session(before), feeds)
    got = run_session(open_session(after), feeds)
    for name, value in wanted.items():
        if not _agree(value, got[name]):
            raise InferenceError(
                f"{before.label}: after raising its opset from {before.opset} to {after.opset} the output {name} "
                f"is not the same; use bit_num=8 or 16, or export the model with a newer opset"
            )


def _agree(wanted: Any, got: Any) -> bool:
    """Compare float arrays; infinities and NaN have to be in the same places."""
    if not isinstance(wanted, np.ndarray) or not np.issubdtype(wanted.dtype, np.floating):
        return True
    size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
    limit = 1e-4 * float(size) + 1e-6
    return wanted.shape == got.shape and np.allclose(got, wanted, rtol=0.0, atol=limit, equal_nan=True)


def _source(model: Model | Path | bytes) -> tuple[str, str | bytes]:
    if isinstance(model, Path):
        return model.name, str(model)
    if isinstance(model, bytes):
        return "the model", model
    on_disk = model.path is not None and model.path.exists()  # a temporary result may be gone
    return model.label, str(model.path) if on_disk else model.serialize()


def _reason(error: Exception) -> str:
    """Return what onnxruntime says, on one line, without its prefixes and the places in its source."""
    text = _SOURCE_PLACE.sub("", " ".join(str(error).split()))
    return text.removeprefix("[ONNXRuntimeError] : ").lstrip("0123456789 :")[:300]
