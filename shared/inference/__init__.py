"""Inference with a bundle: tokenizer, embeddings, layers with exits. Needs no torch."""
