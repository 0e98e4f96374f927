"""Price books measured on a running testbed."""
