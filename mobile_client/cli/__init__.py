"""The `dimee` command and the mobile client's own subcommands."""
