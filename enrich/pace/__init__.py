"""When the next request may go, and what it may cost: windows, the adaptive ceiling, the shared pause, the budget."""
