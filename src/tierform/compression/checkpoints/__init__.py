"""Other programs' model files (GGUF, ONNX weights, quantized checkpoints) as ordinary Hugging Face models."""
