"""The layers on the mobile itself."""
