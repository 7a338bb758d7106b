"""Days of work: tasks that wait for each other, and the hours they take."""
