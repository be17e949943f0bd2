"""Tasks beyond classification: what the outputs of a network mean, and how well it does.

Object detection: `decoders` turns outputs into boxes, `annotations` reads what is on the images, `average_precision`
compares both, and `detection` does it for an ANN and a spiking network side by side, over timesteps.
"""
