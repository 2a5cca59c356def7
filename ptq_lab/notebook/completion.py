"""Tab in a ``%%quantize`` cell and behind the line magics: what may be written at the cursor, in every front end.

It never falls through to Python's names: where nothing is known, what is written already is the answer.
"""

# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# (IPython's functions carry no types.)

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from ptq_lab.config.places import Offer, find_place
from ptq_lab.graph.outline import Outline
from ptq_lab.notebook.candidates import file_offers, input_offers, matching, node_offers, pin_offers, result_offers
from ptq_lab.notebook.first_line import value_of
from ptq_lab.notebook.line_offers import Words, line_offers, split_words
from ptq_lab.notebook.model_names import ModelNames

CELL = "%%quantize"
COMPARE = "%quantize_compare"
IDENTIFIER = "ptq_lab.quantize"
_LINE_MAGIC = re.compile(r"\s*%quantize_(compare|doctor|form|explore)\s")
_WITH_MODEL = ("%quantize_form", "%quantize_explore")


class Completer:
    """Answers of one shell; models are remembered from one to the next."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._models = ModelNames()

    def answer(self, lines: Sequence[str], line: int, column: int) -> tuple[str, list[Offer]] | None:
        """Return what stands left of the cursor and what may replace it; ``None`` outside cells of ours.

        Parameters
        ----------
        lines : sequence of str
            The whole cell.
        line, column : int
            Where the cursor is, counted from 0.
        """
        first = next((index for index, text in enumerate(lines) if text.strip()), 0)
        head = lines[first].lstrip() if lines else ""
        if _LINE_MAGIC.match(lines[line]) if lines else False:
            return self._line_magic(lines[line][:column])
        if head.split(maxsplit=1)[:1] != [CELL] or line < first:
            return None
        if line == first:
            return self._first_line(lines[line], column)
        place = find_place(list(lines[first + 1 :]), line - first - 1, column)
        found = matching(place.offers, place.fragment)
        if place.wants:
            found = self._known(place.wants, place.fragment, head) + found
        return place.fragment, found or [Offer(text=place.fragment, kind="text")]

    def _first_line(self, text: str, column: int) -> tuple[str, list[Offer]] | None:
        words = split_words(text[:column])
        if len(words.done) == 0:  # the name of the magic itself is IPython's
            return None
        found = line_offers(words, self._names, lambda: self._outline(text))
        return words.fragment, found or [Offer(text=words.fragment, kind="text")]

    def _line_magic(self, before: str) -> tuple[str, list[Offer]] | None:
        words = split_words(before)
        if not words.done:
            return None
        if words.done[0] in _WITH_MODEL:
            return self._first_line(before, len(before))
        if words.done[0] == COMPARE:
            given = set(words.done)
            offers = [offer for offer in result_offers(self._names) if offer.text not in given]
            options = [Offer(text="-r", kind="option")]
        else:
            offers, options = [], [Offer(text="-v", kind="option")]
        found = matching([*offers, *options], words.fragment)
        return words.fragment, found or [Offer(text=words.fragment, kind="text")]

    def _known(self, wants: str, fragment: str, head: str) -> list[Offer]:
        if wants == "folders":
            return file_offers(fragment, ())
        by_name: dict[str, Callable[[Outline | None, str], list[Offer]]] = {
            "nodes": node_offers,
            "pins": pin_offers,
            "inputs": input_offers,
        }
        return by_name[wants](self._outline(head), fragment)

    def _outline(self, head: str) -> Outline | None:
        """Return the names in the model of a first line, if there is one that can be read."""
        name = Words(done=tuple(split_words(f"{head} ").done), fragment="").model
        if name is None:
            return None
        return self._models.of(value_of(_plain(name), self._names))


def install(shell: InteractiveShell) -> None:
    """Let a shell complete cells of ours."""
    completer = Completer(shell.user_ns)

    # Asked before all others: it is quick, and theirs would start Jedi.
    @context_matcher(identifier=IDENTIFIER, priority=1000)
    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        found = completer.answer(lines, context.cursor_line, context.cursor_position)
        if found is None:
            return SimpleMatcherResult(completions=[])
        fragment, offers = found
        completions = [SimpleCompletion(text=offer.text, type=offer.kind) for offer in offers]
        return SimpleMatcherResult(completions=completions, matched_fragment=fragment, suppress=True, ordered=True)

    shell.Completer.custom_matchers.append(matcher)


def uninstall(shell: InteractiveShell) -> None:
    """Take that back."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != IDENTIFIER]


def _plain(name: str) -> str:
    """Return a name without quotes, braces or the dollar sign that IPython replaces it by."""
    return name.strip("\"'").removeprefix("{").removesuffix("}").removeprefix("$")
