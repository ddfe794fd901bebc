"""One file per command: HELP, arguments(parser) and run(arguments) -> exit code."""
