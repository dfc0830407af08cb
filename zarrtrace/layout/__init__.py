"""What a trace consists of: groups, variables, coordinates, and which array holds which draws."""
