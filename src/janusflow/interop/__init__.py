"""Adapters to other packages: diffusers, TorchUMM, lmms-eval, ONNX."""
