"""Layers on a GPU, with torch: the second layer runtime beside onnxruntime's (extra ``cuda``)."""
