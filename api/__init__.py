"""The HTTP edge: verifies, translates and signals; decides nothing that a workflow decides and holds no state."""
