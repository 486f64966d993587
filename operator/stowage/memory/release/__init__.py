"""What a release of the engine does by itself: its accounting, its runner, its default batch limits."""
