"""The look: readable on a white and on a dark page, apart for the colour-blind, and light."""

from itertools import combinations

import pytest

from ptq_lab.figures import style

WHITE, DARK = "#ffffff", "#111111"
COLOURS = (style.CODES, style.SCALES, style.FLOAT, style.REST)


def linear(colour: str) -> list[float]:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def luminance(colour: str) -> float:
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def seen_without_green(colour: str) -> list[float]:
    """Linear RGB as seen with deuteranopia (Vienot, Brettel and Mollon 1999, their reduced matrix)."""
    red, green, blue = linear(colour)
    yellow = 0.29275 * red + 0.70725 * green
    return [yellow, yellow, -0.02234 * red + 0.02234 * green + blue]


@pytest.mark.parametrize("page", [WHITE, DARK])
def test_every_colour_stands_out_from_both_pages(page: str) -> None:
    assert min(contrast(colour, page) for colour in COLOURS) >= 3
    assert contrast(style.INK, page) >= 4.3


def test_quantized_and_float_stay_apart_for_the_colour_blind() -> None:
    seen = [seen_without_green(colour) for colour in (style.CODES, style.SCALES, style.FLOAT)]
    for one, other in combinations(seen, 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.1


def test_an_empty_figure_costs_less_than_two_kilobytes() -> None:
    assert len(style.new_figure("title", height=100).to_json()) < 2000
