"""The trainer of all networks: steps, states, resuming, sharding, validation, history."""
