"""How the page is served: the order of a start, what is shown until then, and what is let in; HTTP, no Gradio."""
