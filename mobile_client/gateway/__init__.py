"""HTTP gateway of the mobile."""
