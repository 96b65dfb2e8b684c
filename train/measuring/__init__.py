"""What is measured of an adapter: replies, losses, rules, texts, resampling. It judges and writes no file."""
