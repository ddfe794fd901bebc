"""Models for small devices: GGUF files, and the llama.cpp runtime that they are held against."""
