"""What a log says went wrong first: lines → scan → diagnosis."""
