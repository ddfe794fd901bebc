"""The command `leanmodel`."""
