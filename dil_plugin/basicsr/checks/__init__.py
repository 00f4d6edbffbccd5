"""What is checked before anything is made: options that a run needs, its network, its weights, a step of its size."""
