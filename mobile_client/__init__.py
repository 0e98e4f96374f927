"""The mobile: decides where a text is answered, answers with its own layers, or offloads."""

from mobile_client.client import MobileClient
from mobile_client.settings import MobileSettings

__all__ = ["MobileClient", "MobileSettings"]
