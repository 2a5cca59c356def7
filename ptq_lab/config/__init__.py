"""Text in, typed options out: INI text, a file or a dictionary becomes a checked, frozen `QuantConfig`.

Everything about an option (type, default, range, meaning, dump, schema, documentation) follows from its one
declaration in `sections`. Owns pydantic; knows neither numpy nor a model.
"""

from ptq_lab.config.dump import dump_config
from ptq_lab.config.ini import IniDocument, IniEntry, IniSection, parse_ini
from ptq_lab.config.load import check_config, load_config, split_option
from ptq_lab.config.options import QuantConfig
from ptq_lab.config.schema import schema
from ptq_lab.config.support import unsupported
from ptq_lab.config.template import TEMPLATES, template

__all__ = [
    "TEMPLATES",
    "IniDocument",
    "IniEntry",
    "IniSection",
    "QuantConfig",
    "check_config",
    "dump_config",
    "load_config",
    "parse_ini",
    "schema",
    "split_option",
    "template",
    "unsupported",
]
