"""The command line. Nothing below it imports it."""
