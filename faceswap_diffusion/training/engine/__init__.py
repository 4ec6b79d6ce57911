"""How any network is trained: steps, states, resuming, sharding, validation, history."""
