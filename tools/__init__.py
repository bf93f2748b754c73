"""What maintains the project beside the program."""
