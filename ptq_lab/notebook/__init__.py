"""Cells in; displays and one named variable of the user out.

Owns IPython and the widgets. It turns a ``%%quantize`` cell into one call of the headless core and what comes
back into displays; it holds no numerics, edits no graph and parses no configuration.
"""
