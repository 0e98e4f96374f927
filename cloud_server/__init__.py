"""The cloud: all layers, over HTTP."""
