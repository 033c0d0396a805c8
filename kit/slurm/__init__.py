"""Several nodes: ranks of one step in containers on the nodes of a Slurm allocation."""
