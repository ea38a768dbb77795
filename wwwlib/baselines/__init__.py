"""Baselines: other methods that name neurons, with the same `ConceptTable`, or explain decisions.

- `clip_dissect` compares activations with the similarities of an image-text encoder.
- `network_dissection` compares activation maps with pixel masks.
- `milan` describes a neuron's exemplars in words with a trained decoder.
- `falcon` finds words for groups of features that are active together.
- `grad_cam` computes heatmaps of classes, and `craft` decomposes a class into concepts.
- `shapley` samples Shapley values, a reference for contributions.

Those that need further packages import them on use; the extra is ``baselines``.
"""
