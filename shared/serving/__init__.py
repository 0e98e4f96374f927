"""What every HTTP service shares: authentication, limits, error answers, server options."""
