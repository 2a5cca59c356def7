"""Quantizers side by side: an adapter for each, and what measures them; `side_by_side.py` is the command."""
