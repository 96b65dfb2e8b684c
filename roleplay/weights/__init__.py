"""Files of weights: base models, adapter folders, what is refused in them, and the hub. It generates nothing."""
