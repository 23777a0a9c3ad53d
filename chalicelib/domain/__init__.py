"""What the guard knows and decides: pure, without I/O and without a clock of its own."""
