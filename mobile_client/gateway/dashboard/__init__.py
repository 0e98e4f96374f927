"""The gateway's page for people: its files, its sign-in, and the JSON calls that it makes."""
