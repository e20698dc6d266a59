"""The formats and inputs of an export. Imports no torch, since the command line's help reads it."""

FORMATS = ("onnx", "torch")
TAKES = ("noise", "seed")
