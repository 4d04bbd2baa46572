"""Plain torch training: loop, EMA, checkpoints, seeding."""
