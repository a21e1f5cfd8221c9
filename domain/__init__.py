"""The vocabulary and the rules of the orchestrator: pure, no I/O, no vendor library."""
