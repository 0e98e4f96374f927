"""The mobile client over HTTP."""
