"""What fits, in one place: training, checking and the page refuse the same things."""

PERSONA = 2000  # characters of a system prompt
SHOWN = 4000  # characters of what the page shows of a persona: name, greeting and openers together
MESSAGE = 2000  # characters of what a visitor says
EXAMPLE = 2000  # characters of either side of a row that is looked up
PAIR_TOKENS = 1024  # of either side of a preference pair, in the same way
ROW_TOKENS = 512  # of a row with its persona, where no other number is asked for
NAME = 100  # characters of who speaks
