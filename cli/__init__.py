"""The `infrasage` command and the composition roots: the only place where clients are built and wired."""
