"""Every file name of an adapter folder, and how large files and matrices may be. It opens nothing."""

import re

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TEMPLATE, TRAINING = "chat_template.jinja", "training.json"
CARD, CURVE = "README.md", "training_curve.png"
NOTICE = "NOTICE"  # the terms that go out with every weight of Gemma's
BOARD, BOARD_PLOT = "scoreboard.json", "scoreboard.png"
EXAMPLES = "examples.json.gz"  # the training rows that it looks up, where it has learnt to
MEANING = "meaning.safetensors"  # what those rows mean to the base model
PICTURE = "picture.png"  # that character cards get, where somebody has put one there
NEEDED = (WEIGHTS, CONFIG, TEMPLATE, TRAINING, CARD)
FILES = (
    *NEEDED,
    EXAMPLES,
    MEANING,
    NOTICE,
    BOARD,
    CURVE,
    BOARD_PLOT,
    PICTURE,
)  # everything that an adapter's repository holds
READABLE = ("", ".json", ".jinja", ".md", ".txt", ".png", ".model", ".safetensors")  # what may lie in the folder
MAX_BYTES = {  # every one of FILES
    **{WEIGHTS: 1 << 30, CONFIG: 1 << 20, TEMPLATE: 1 << 16, TRAINING: 1 << 22, EXAMPLES: 1 << 23, MEANING: 1 << 25},
    **{CARD: 1 << 20, NOTICE: 1 << 16, BOARD: 1 << 22, CURVE: 1 << 23, BOARD_PLOT: 1 << 23, PICTURE: 1 << 22},
}
NAME = re.compile(r"\w[\w.-]{0,95}")  # of the folder, and so of the adapter
MAX_RANK, MAX_ALPHA = 256, 4096  # of an adapter that is trained or taken in
