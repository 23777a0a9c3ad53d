"""What the guard knows and decides. Pure: no I/O and no clock."""
