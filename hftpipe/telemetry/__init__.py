"""What a pipeline tells of itself: one look at all of it, counts and times of its processes, a line for each event."""
