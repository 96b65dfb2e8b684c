"""What generates: the protocol of questions and answers, and the engines behind it. Who asks is unknown."""
