"""How tokens attend, in every family: which sees which, what is kept, and what stands beside."""
