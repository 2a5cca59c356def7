"""Write the expected problems again."""

from tests.config.corpus import EXPECTED, expected_text

EXPECTED.write_text(expected_text(), encoding="utf-8")
