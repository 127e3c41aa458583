"""The log to other systems, each with its own resumable cursor; one file for each sink."""
