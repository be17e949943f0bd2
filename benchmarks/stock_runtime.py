"""Prints the accuracy of a compiled network: python stock_runtime.py model.snn.onnx test.npz."""

import sys

import numpy as np
import onnxruntime as ort

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
data = np.load(sys.argv[2])
images, labels = data["image"].astype(np.float32), data["label"]
classes = [session.run(None, {"image": images[i : i + 100]})[0].argmax(1) for i in range(0, len(images), 100)]
print(f"{np.mean(np.concatenate(classes) == labels):.2%} of {len(labels):,} images")
