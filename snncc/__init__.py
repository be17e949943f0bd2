"""snncc: a compiler that turns trained ONNX networks into spiking ones, without training."""
