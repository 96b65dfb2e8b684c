"""The commands: lora, evaluate, export, push, each one page that reads top to bottom; their work is in the rooms."""
