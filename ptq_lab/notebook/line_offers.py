"""What may be written behind a magic of ours that takes a model: its options, their choices, files and variables."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ptq_lab.config.places import Offer
from ptq_lab.flags import OPTIMIZE
from ptq_lab.graph.outline import Outline
from ptq_lab.notebook.candidates import (
    file_offers,
    judge_offers,
    matching,
    model_offers,
    result_offers,
    sample_offers,
    shape_offers,
)

_WORD = re.compile(r"""(?:"[^"]*"?|'[^']*'?|\{[^}]*\}?|[^\s"'{])+""")
_RESULT = "result"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A line up to the cursor: its finished words, and the one that is being written."""

    done: tuple[str, ...]
    fragment: str

    @property
    def actions(self) -> dict[str, argparse.Action]:
        """The options of the magic, as they are spelled."""
        return _actions(self.done[0] if self.done else "")

    @property
    def option(self) -> str:
        """The option whose value is being written, as it is spelled; empty if there is none."""
        return self.done[-1] if self.done and self.takes_value(self.done[-1]) else ""

    @property
    def model(self) -> str | None:
        """The word that names the model."""
        expects = False
        for word in self.done[1:]:
            if expects:
                expects = False
            elif word.startswith("-"):
                expects = self.takes_value(word)
            else:
                return word
        return None

    def takes_value(self, word: str) -> bool:
        """Tell whether a word is an option that a value follows."""
        action = self.actions.get(word)
        return action is not None and action.nargs != 0


def split_words(text: str) -> Words:
    """Split a line where blanks stand outside quotes and braces.

    Examples
    --------
    >>> words = split_words('%%quantize "my model.onnx" --sam')
    >>> words.done, words.fragment, words.model
    (('%%quantize', '"my model.onnx"'), '--sam', '"my model.onnx"')
    """
    found = [match[0] for match in _WORD.finditer(text)]
    if not found or (text.endswith(tuple(" \t")) and _closed(found[-1])):
        return Words(done=tuple(found), fragment="")
    return Words(done=tuple(found[:-1]), fragment=found[-1])


def line_offers(words: Words, names: Mapping[str, Any], outline: Callable[[], Outline | None]) -> list[Offer]:
    """Return what may stand for the word at the cursor.

    Parameters
    ----------
    words : Words
    names : mapping
        The user's variables.
    outline : callable
        Returns the names in the model of this line; only called where they matter.
    """
    spelled, equals, value = words.fragment.partition("=")
    if equals and spelled.startswith("--") and words.takes_value(spelled):
        found = _value_offers(words.actions[spelled], value, names, outline)
        return [Offer(text=f"{spelled}={offer.text}", kind=offer.kind) for offer in found]
    if words.option:
        return _value_offers(words.actions[words.option], words.fragment, names, outline)
    if words.fragment.startswith("-") or words.model is not None:
        return matching(_options(words), words.fragment)
    if words.fragment.startswith(("{", "$")):
        return _expanded(words.fragment, model_offers(names))
    files = file_offers(words.fragment, (".onnx",))
    options = [] if words.fragment else _options(words)
    return [*matching(model_offers(names), words.fragment), *files, *options]


def _value_offers(
    action: argparse.Action, fragment: str, names: Mapping[str, Any], outline: Callable[[], Outline | None]
) -> list[Offer]:
    variables = {"samples": sample_offers, "evaluate": judge_offers}.get(action.dest)
    if variables is not None and fragment.startswith(("{", "$")):
        return _expanded(fragment, variables(names))
    if variables is not None:
        return [*matching(variables(names), fragment), *file_offers(fragment, (".npz",))]
    if action.choices:
        return matching([Offer(text=str(choice), kind="value") for choice in action.choices], fragment)
    if action.dest == "output":
        return file_offers(fragment, (".onnx",))
    if action.dest == "config":
        return file_offers(fragment, (".cfg", ".ini"))
    if action.dest == "input_shape":
        return shape_offers(outline(), fragment)
    if action.dest == "optimize":
        return matching([Offer(text=value, kind="value") for value in OPTIMIZE], fragment)
    results = [*result_offers(names), Offer(text=_RESULT, kind="result")]
    return matching(dict.fromkeys(results), fragment)


def _expanded(fragment: str, offers: Any) -> list[Offer]:
    """Return variables as ``{name}`` or ``$name``."""
    sign = fragment[0]
    found = matching(offers, fragment.strip("{}$"))
    braces = [Offer(text=f"{{{offer.text}}}" if sign == "{" else f"${offer.text}", kind=offer.kind) for offer in found]
    return [offer for offer in braces if sign == "{" or "." not in offer.text]  # $a.b is $a and .b


def _options(words: Words) -> list[Offer]:
    actions = words.actions
    given = {actions[word].dest for word in words.done if word in actions}
    shown = [(name, action) for name, action in actions.items() if action.dest not in given]
    long = [name for name, _ in shown if name.startswith("--")]
    short = [name for name, _ in shown if not name.startswith("--")]
    wanted = [*short, *long] if words.fragment and not words.fragment.startswith("--") else long
    return [Offer(text=name, kind="option") for name in wanted]


@cache
def _actions(magic: str) -> dict[str, argparse.Action]:
    from ptq_lab.notebook.live_magics import LiveMagics
    from ptq_lab.notebook.magic import QuantizeMagics

    live = {"%quantize_form": LiveMagics.quantize_form, "%quantize_explore": LiveMagics.quantize_explore}
    parser = live.get(magic, QuantizeMagics.quantize).parser
    return {spelled: action for action in parser._actions for spelled in action.option_strings}


def _closed(word: str) -> bool:
    quoted = word[:1] in ("'", '"') and (len(word) == 1 or word[-1] != word[0])
    return not quoted and word.count("{") == word.count("}")
