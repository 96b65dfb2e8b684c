"""Characters, each a folder, and the tools that make, check, convert and fetch rows. It trains and measures nothing."""
