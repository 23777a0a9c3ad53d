"""What the command line and the console share; never shipped to Lambda."""
