"""Makes it so. Every effect; each step publishes by rename and may be run again."""
