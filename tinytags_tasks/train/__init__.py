"""Training: turns a labelled set into a published model, ``model.onnx`` and its card."""
