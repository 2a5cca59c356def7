"""The demos: a name enters; an embedded model, its data and its score leave.

Owns three small trained models with the arrays to calibrate and evaluate them (see README.md here for
origins and licences). Nothing is read before it is asked for, and no session is made here.
"""

from ptq_lab.demo.catalog import NAMES, Demo, copy, load, picture_psnr, psnr

__all__ = ["NAMES", "Demo", "copy", "load", "picture_psnr", "psnr"]
