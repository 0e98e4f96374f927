"""The bundle: the one folder that every tier loads."""
