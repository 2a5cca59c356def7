"""Models in entropy-coded containers (`.ptqz`).

A float model and a plan with codes enter, a file near the entropy of its weights leaves; a session, a plain ONNX file
or the plan come back. The format is described in docs/format.md.
"""

from ptq_lab.container.convert import pack, pack_model, unpack
from ptq_lab.container.read import Container
from ptq_lab.container.session import load_session
from ptq_lab.container.write import write_container

__all__ = ["Container", "load_session", "pack", "pack_model", "unpack", "write_container"]
