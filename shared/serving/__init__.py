"""HTTP building blocks of every service: authentication, limits, error answers, server options."""
