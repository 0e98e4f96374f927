"""Running a bundle's layers: tokens, embeddings, layers with exits. numpy and onnxruntime only."""
