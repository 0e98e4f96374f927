"""An emulated link: a TCP relay that delays, slows, stalls and cuts what passes it."""
