"""WWW: what each neuron of a vision network means, where it looks, and why it matters.

Ahn, Kim, Kim, "WWW: A Unified Framework for Explaining What, Where and Why", CVPR 2024.
"""

__version__ = "0.1.0"
