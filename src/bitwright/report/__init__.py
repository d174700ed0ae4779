"""What people read and look at: pictures of cells, evaluations, and the report of a search."""
