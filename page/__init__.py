"""The page: the one room that knows Gradio. It knows every engine by its protocol alone, and no training."""
