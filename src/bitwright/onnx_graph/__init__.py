"""Reading ONNX: from the operators of a file to the operations of an integer graph (used by imports/onnx.py)."""
