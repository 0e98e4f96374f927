"""The ground floor: what every tier and the lab share. Imports nothing above it."""
