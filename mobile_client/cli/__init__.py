"""The `dimee` command and the subcommands of the mobile client."""
