"""Train: a labelled set becomes a published model, ``model.onnx`` and its card."""
