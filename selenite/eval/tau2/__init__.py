"""tau2: customers with tasks, tools over a database, graded by the state that is left."""
