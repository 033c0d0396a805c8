"""One module a command: takes parsed arguments, prints the result, returns the exit code."""
