"""Integer-only networks: their graph, its execution, and how a trained network becomes one."""
