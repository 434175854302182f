"""Commands. stdout is the result, stderr the progress; heavy imports wait until a command runs."""
