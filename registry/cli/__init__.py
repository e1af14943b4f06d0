"""The command line: it parses, calls one verb, prints and maps errors to exit codes."""
