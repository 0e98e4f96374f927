"""The cloud server: all layers, over HTTP."""
