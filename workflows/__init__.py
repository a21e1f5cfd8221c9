"""The deterministic stories and the Temporal connection they run on; never touches the world itself."""
