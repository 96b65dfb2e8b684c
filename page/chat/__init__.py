"""A conversation as the page holds it: what is asked, what each pane shows, what is saved; no Gradio and no model."""
