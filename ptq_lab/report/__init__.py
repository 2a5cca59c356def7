"""Plan and runs in, tables out: what changed, what it cost, why a layer stayed float.

Owns no third-party library beyond numpy; knows nothing of plotly or HTML.
"""
