"""The search: which ψ and τ each layer gets, for a budget of spikes, operations, energy or accuracy."""
