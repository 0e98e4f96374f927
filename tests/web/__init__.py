"""Tests of the mobile client in a browser: JavaScript against Python."""
