"""What was answered: a completion goes in; text, typed values, a status and Arrow columns come out."""
