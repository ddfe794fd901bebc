"""Encoders that classify texts: their sizes, their rows, their weights, their ONNX files."""
