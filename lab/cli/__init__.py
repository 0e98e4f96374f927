"""The lab's subcommands of `dimee`."""
