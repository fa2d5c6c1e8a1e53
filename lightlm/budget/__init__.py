"""From hours to a plan: the clock, the measured machine, the scaling law, the choice."""
