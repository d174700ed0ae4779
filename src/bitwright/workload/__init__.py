"""What a network computes and stores, as a table: what costs are counted on."""
