"""What was found: a board of figures, intervals, votes, and the words for them. It measures nothing."""
